// Hands a file from Python to the browser's own download; nothing is served by address.

function render({ model, el }) {
  el.style.display = "none";
  model.on("msg:custom", (message, buffers) => {
    if (message.kind !== "save") return;
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob(buffers, { type: message.type }));
    link.download = message.name;
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  });
}

export default { render };
