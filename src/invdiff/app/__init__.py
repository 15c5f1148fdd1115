"""The page of `invdiff app`: restore photographs and scans in a browser.

Forms are made from the fields of tasks and solvers; pictures are made by `restoration`, in worker
processes. Only what draws the page needs gradio (the extra `app`), and imports it when it draws.
"""
