function setAt(root, path, value) {
  const dot = path.lastIndexOf(".");
  const key = path.slice(dot + 1);
  for (const node of root.querySelectorAll(`[data-p="${CSS.escape(path.slice(0, dot))}"]`)) {
    for (const pair of node.dataset.set.split(" ")) {
      const [name, attribute] = pair.split(":");
      if (name !== key) continue;
      if (attribute) node.setAttribute(attribute, value);
      else node.textContent = value;
    }
  }
}

export default {
  render({ model, el }) {
    el.classList.add("wb");
    const style = document.createElement("style");
    const title = document.createElement("h3");
    const body = document.createElement("div");
    style.textContent = model.get("css");
    title.textContent = model.get("title");
    title.hidden = !title.textContent;
    body.setAttribute("aria-live", "off");
    el.append(style, title, body);
    const tidy = () => { el.style.display = title.hidden && !body.childElementCount ? "none" : ""; };
    tidy();
    let seq = 0;
    const put = (name, html) => {
      let node = body.querySelector(`:scope > [data-slot="${CSS.escape(name)}"]`);
      if (!node) {
        node = document.createElement("div");
        node.dataset.slot = name;
        body.append(node);
      }
      node.innerHTML = html; // escaped where it was made
    };
    const told = (message) => {
      if (message.all) {
        body.replaceChildren();
        for (const [name, html] of message.all) put(name, html);
      } else if (message.seq !== seq + 1) {
        model.send({ hello: 1 }); // missed something
        return;
      } else {
        for (const [path, value] of message.set ?? []) setAt(body, path, value);
        if (message.put) put(...message.put);
      }
      tidy();
      seq = message.seq;
    };
    model.on("msg:custom", told);
    model.send({ hello: 1 });
    return () => model.off("msg:custom", told);
  },
};
