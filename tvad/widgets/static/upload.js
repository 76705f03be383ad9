// A file from the visitor's disk, sent in pieces; name and size are checked before the first byte, here and in Python.

const PIECE = 1 << 20;

function render({ model, el }) {
  el.classList.add("tv-upload");
  const area = document.createElement("label");
  area.className = "tv-drop";
  const input = document.createElement("input");
  input.type = "file";
  input.accept = model.get("suffixes").join(",");
  const text = document.createElement("span");
  const bar = document.createElement("progress");
  bar.max = 1;
  bar.value = 0;
  bar.hidden = true;
  area.append(input, text, bar);
  el.append(area);
  const idle = () => {
    text.textContent = `Upload a video (up to ${Math.floor(model.get("most") / 1048576)} MB)`;
    bar.hidden = true;
    input.value = "";
    file = null;
  };
  let file = null, sent = 0;

  function begin(chosen) {
    if (!chosen) return;
    if (!model.get("ready")) { model.send({ kind: "refused", reason: "early" }); idle(); return; }
    const ending = "." + chosen.name.split(".").pop().toLowerCase();
    if (!model.get("suffixes").includes(ending) || chosen.size > model.get("most") || !chosen.size) {
      model.send({ kind: "check", name: chosen.name, size: chosen.size });
      idle();
      return;
    }
    file = chosen;
    sent = 0;
    bar.hidden = false;
    text.textContent = "Sending…";
    model.send({ kind: "begin", name: chosen.name, size: chosen.size });
  }

  model.on("msg:custom", async (message) => {
    if (message.kind === "stop") { idle(); return; }
    if (message.kind !== "next" || !file) return;
    bar.value = sent / file.size;
    if (sent >= file.size) { model.send({ kind: "end" }); idle(); return; }
    const piece = await file.slice(sent, sent + PIECE).arrayBuffer();
    sent += piece.byteLength;
    model.send({ kind: "piece" }, undefined, [piece]);
  });
  input.addEventListener("change", () => begin(input.files[0]));
  area.addEventListener("dragover", (event) => { event.preventDefault(); area.classList.add("tv-over"); });
  area.addEventListener("dragleave", () => area.classList.remove("tv-over"));
  area.addEventListener("drop", (event) => {
    event.preventDefault();
    area.classList.remove("tv-over");
    begin(event.dataTransfer.files[0]);
  });
  idle();
}

export default { render };
