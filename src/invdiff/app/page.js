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

  // Answers come by one stream, which the server ends when nothing is left to answer. An event that
  // is told while the end is on its way would wait for ever: the page takes the stream for open, the
  // server for closed. One more event opens the next stream, which brings the answers to both.
  const ask = window.fetch.bind(window);
  let stream = null; // the one that is open; late: whether an event was told since it opened
  const opened = () => {
    const mine = (stream = { late: false });
    return () => {
      if (stream === mine) stream = null;
      setTimeout(() => mine.late && !stream && document.querySelector("#wake")?.click(), 200);
    };
  };
  window.fetch = async (input, init) => {
    const url = String(input?.url ?? input);
    const ended = url.includes("/queue/data") ? opened() : null;
    const answer = await ask(input, init).catch((error) => {
      ended?.();
      throw error;
    });
    if (url.includes("/queue/join") && stream) stream.late = true;
    if (!ended || !answer.body) return answer;
    const watched = new TransformStream({ flush: ended });
    return new Response(answer.body.pipeThrough(watched), answer);
  };
}
