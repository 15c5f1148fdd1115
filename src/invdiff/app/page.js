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
  // The page's library may read the last message and leave, or be told to stop, before the stream
  // itself ends: each of these is an end, and the first counts.
  const ask = window.fetch.bind(window);
  let stream = null; // the one that is open; late: whether an event was told since it opened
  const opened = () => {
    const mine = (stream = { late: false });
    let ending = false;
    const wake = (tries) => {
      if (!mine.late || stream || !tries) return;
      document.querySelector("#wake")?.click();
      setTimeout(wake, 1000, tries - 1);
    };
    const close = () => {
      if (stream === mine) stream = null;
      wake(5);
    };
    return () => {
      if (!ending) setTimeout(close, 200); // the library has read the last message by then
      ending = true;
    };
  };
  window.fetch = async (input, init) => {
    const url = String(input?.url ?? input);
    const ended = url.includes("/queue/data") ? opened() : null;
    if (ended) (init?.signal ?? input?.signal)?.addEventListener("abort", ended);
    const answer = await ask(input, init).catch((error) => {
      ended?.();
      throw error;
    });
    if (url.includes("/queue/join") && stream) stream.late = true;
    if (!ended || !answer.body) return answer;
    const reader = answer.body.getReader();
    const text = new TextDecoder();
    let last = "";
    const watched = new ReadableStream({
      async pull(out) {
        const { done, value } = await reader.read().catch((error) => {
          ended();
          throw error; // the stream that is read fails with it
        });
        if (done) {
          ended();
          return out.close();
        }
        last = (last + text.decode(value, { stream: true })).slice(-value.length - 20);
        if (last.includes('"close_stream"')) ended();
        out.enqueue(value);
      },
      cancel(reason) {
        ended();
        return reader.cancel(reason);
      },
    });
    return new Response(watched, answer);
  };
}
