() => {
  // A picture that is pasted goes where a file of the tab in view would be dropped.
  document.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (!files.length) return;
    const inputs = [...document.querySelectorAll("#restore-file input[type=file], #scans-file input[type=file]")];
    const input = inputs.find((i) => i.closest("[role=tabpanel]")?.offsetParent !== null) ?? inputs[0];
    if (!input) return;
    const held = new DataTransfer();
    files.forEach((file) => held.items.add(file));
    input.files = held.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
    event.preventDefault();
  });
}
