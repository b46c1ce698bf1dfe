"use strict";
// The page of a result folder: gallery, comparison, and what is known of everyone. The data of one photograph and the
// 3D part come as scripts, when they are wanted: a page opened from a disk may not fetch files.
(() => {
  const page = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const params = new Map(); // entry -> promise of its data
  let shown = page.entries; // those of the filter, in order
  let open = -1;
  let scene = null;
  let filter = "all";

  function make(tag, text, attributes = {}) {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return element;
  }

  // ---- scripts on demand ---------------------------------------------------------------------------------------

  // A data script calls bodyreg(value); the value is hung on the script that called.
  window.bodyreg = (value) => { document.currentScript.value = value; };

  function script(url) {
    return new Promise((resolve, reject) => {
      const element = make("script");
      element.onload = () => { resolve(element.value); element.remove(); };
      element.onerror = () => { reject(new Error("The file " + decodeURI(url) + " is not there.")); element.remove(); };
      element.src = url;
      document.head.append(element);
    });
  }

  const cached = new Map();
  function once(url) {
    if (!cached.has(url)) {
      const promise = script(url);
      promise.catch(() => cached.delete(url));
      cached.set(url, promise);
    }
    return cached.get(url);
  }

  const asset = (entry, name) => page.assets + "/" + entry.url + name;

  function dataOf(entry) {
    if (!params.has(entry)) {
      if (params.size > 24) params.delete(params.keys().next().value); // a long walk keeps the memory small
      const promise = script(asset(entry, "_data.js"));
      promise.catch(() => params.delete(entry));
      params.set(entry, promise);
    }
    return params.get(entry);
  }

  // ---- gallery ---------------------------------------------------------------------------------------------------

  const count = (n, one, many) => n.toLocaleString("en") + " " + (n === 1 ? one : many);
  const peopleOf = (entry) => (entry.people ? count(entry.people, "person", "people") : "nobody");

  function card(entry) {
    const button = make("button", undefined, { class: "card", type: "button", title: entry.file });
    const image = make("img", undefined, { loading: "lazy", decoding: "async", alt: "", width: 320, height: 240 });
    const url = entry.thumb ? asset(entry, "_thumb.jpg") : entry.overlay;
    if (url) image.src = url;
    const under = make("span", undefined, { class: "under" });
    under.append(make("span", entry.file, { class: "file" }), make("span", peopleOf(entry), { class: "count" }));
    button.append(image, under);
    button.onclick = () => { location.hash = "#" + entry.index; };
    return button;
  }

  const FILTERS = {
    all: ["All", () => true],
    done: ["With people", (entry) => entry.status === "done"],
    nobody: ["Without", (entry) => entry.status === "nobody"],
    refused: ["Refused", (entry) => entry.status === "refused"],
  };

  function list() {
    const wanted = $("search").value.trim().toLowerCase();
    const found = page.entries.filter((e) => FILTERS[filter][1](e) && e.file.toLowerCase().includes(wanted));
    shown = found.filter((entry) => entry.status !== "refused");
    const refused = found.filter((entry) => entry.status === "refused");
    $("gallery").replaceChildren(...shown.map((entry) => (entry.card ??= card(entry))));
    $("reasons").replaceChildren(...refused.map((entry) => {
      const row = make("tr");
      row.append(make("td", entry.file), make("td", entry.reason));
      return row;
    }));
    $("refused").hidden = !refused.length;
    $("nothing").hidden = found.length > 0;
    for (const button of $("filters").children) button.setAttribute("aria-pressed", button.dataset.filter === filter);
  }

  function begin() {
    const number = (status) => page.entries.filter((entry) => entry.status === status).length;
    page.entries.forEach((entry, k) => { entry.index = k; });
    document.title = page.title + " \u00b7 bodyreg";
    $("title").textContent = page.title;
    const people = page.entries.reduce((sum, entry) => sum + (entry.people || 0), 0);
    const facts = [count(page.entries.length, "file", "files"), count(people, "person", "people")];
    if (number("refused")) facts.push(number("refused") + " refused");
    $("summary").textContent = facts.join(" \u00b7 ");
    $("made").textContent = page.made;
    for (const [name, [label, test]] of Object.entries(FILTERS)) {
      const matching = page.entries.filter(test).length;
      if (!matching && name !== "all") continue;
      const button = make("button", label + " " + matching.toLocaleString("en"), { type: "button", "data-filter": name });
      button.onclick = () => { filter = name; list(); };
      $("filters").append(button);
    }
    $("search").oninput = list;
    list();
    route();
  }

  // ---- one photograph ----------------------------------------------------------------------------------------------

  function route() {
    const number = Number(location.hash.slice(1) || NaN);
    const entry = Number.isInteger(number) ? page.entries[number] : undefined;
    if (entry && entry.status !== "refused") return visit(entry);
    const last = page.entries[open];
    open = -1;
    $("detail").hidden = true;
    document.body.classList.remove("open");
    last?.card?.focus();
  }

  function visit(entry) {
    open = entry.index;
    if (!shown.includes(entry)) { filter = "all"; $("search").value = ""; list(); }
    const place = shown.indexOf(entry);
    $("detail").hidden = false;
    document.body.classList.add("open");
    $("name").textContent = entry.file;
    $("name").title = entry.file;
    $("place").textContent = place + 1 + " of " + shown.length;
    $("previous").disabled = place <= 0;
    $("next").disabled = place >= shown.length - 1;
    $("compare").classList.toggle("single", !(entry.photo && entry.mesh));
    $("pictured").textContent = entry.mesh || entry.overlay ? "Bodies" : "";
    picture($("photo"), entry.photo && asset(entry, "_photo.jpg"));
    picture($("mesh"), entry.mesh ? asset(entry, "_mesh.jpg") : entry.overlay);
    fit(entry.size);
    if (!$("detail").contains(document.activeElement)) $("close").focus({ preventScroll: true });
    $("persons").replaceChildren();
    $("facts").replaceChildren();
    body(entry);
  }

  function picture(image, url) {
    image.hidden = !url;
    image.removeAttribute("src"); // the last photograph is not shown while this one is decoded
    if (url) image.src = url;
  }

  // The slider's ends are the picture's edges, not the pane's.
  function fit(size) {
    const compare = $("compare");
    const caption = compare.nextElementSibling;
    compare.style.cssText = caption.style.cssText = "";
    const room = matchMedia("(max-width: 820px)").matches ? 0.7 * innerHeight : compare.clientHeight;
    if (!size || !compare.clientWidth || !room) return;
    const [h, w] = size;
    const scale = Math.min(compare.clientWidth / w, room / h);
    compare.style.cssText = `flex:none;align-self:center;width:${w * scale}px;height:${h * scale}px`;
    caption.style.cssText = `align-self:center;width:${w * scale}px`;
    slide();
  }

  function slide() {
    $("compare").style.setProperty("--at", $("slider").value + "%");
  }

  async function body(entry) {
    const say = (text) => { $("message").textContent = text; $("message").hidden = !text; $("canvas").hidden = !!text; };
    $("views").hidden = !entry.people;
    if (!entry.data) return say("This photograph has no 3D data in the folder.");
    say("Loading \u2026");
    try {
      const data = await dataOf(entry);
      if (open !== entry.index) return;
      facts(entry, data);
      if (!data.people.length) return say("Nobody was found here.");
      const [, faces] = await Promise.all([once(page.assets + "/scene.js"), once(page.assets + "/" + data.faces)]);
      if (open !== entry.index) return;
      try {
        scene ??= window.BodyregScene.create($("canvas"));
      } catch {
        return say("3D needs WebGL, which this browser does not offer here.");
      }
      say("");
      scene.resize();
      scene.show(data, window.BodyregScene.faces(faces));
      press("camera");
      scene.skeleton($("skeleton").getAttribute("aria-pressed") === "true");
      persons(data);
    } catch (error) {
      if (open === entry.index) say(error.message);
    }
  }

  function persons(data) {
    if (data.people.length < 2) return;
    const choose = (chosen) => {
      scene.select(chosen);
      [...$("persons").children].forEach((button, k) => button.setAttribute("aria-pressed", k - 1 === chosen));
    };
    const labels = ["Everyone", ...data.people.map((_, k) => "Person " + k)];
    $("persons").replaceChildren(...labels.map((label, k) => {
      const button = make("button", undefined, { type: "button", "aria-pressed": k === 0 });
      if (k) {
        const dot = make("i");
        dot.style.background = `rgb(${data.people[k - 1].colour.map((c) => Math.round(c * 255))})`;
        button.append(dot);
      }
      button.append(label);
      button.onclick = () => choose(k - 1);
      return button;
    }));
  }

  function press(view) {
    for (const button of $("views").querySelectorAll("[data-view]")) {
      button.setAttribute("aria-pressed", button.dataset.view === view);
    }
  }

  // ---- parameters and camera ---------------------------------------------------------------------------------------

  function table(rows) {
    const element = make("table");
    for (const [name, ...values] of rows) {
      const row = make("tr");
      row.append(make("th", name, { scope: "row" }), ...values.map((value) => make("td", value)));
      element.append(row);
    }
    return element;
  }

  const fixed = (digits) => (value) => Number(value).toFixed(digits).replace("-", "\u2212");
  const degrees = (value) => fixed(1)((value * 180) / Math.PI);

  function folded(title, rows) {
    const element = make("details");
    element.append(make("summary", title), table(rows));
    return element;
  }

  function facts(entry, data) {
    const out = [make("h3", "Camera")];
    const { K, size, focal_source: source, orientation } = data.camera;
    const rows = [["size", size[1] + " \u00d7 " + size[0] + " px"]];
    rows.push(["focal length", fixed(1)(K[0][0]) + (K[0][0] === K[1][1] ? "" : ", " + fixed(1)(K[1][1])) + " px"]);
    rows.push(["taken from", source], ["centre", fixed(1)(K[0][2]) + ", " + fixed(1)(K[1][2]) + " px"]);
    rows.push(["field of view", degrees(2 * Math.atan(size[1] / 2 / K[0][0])) + "\u00b0 across"]);
    if (orientation && orientation !== 1) rows.push(["turned by EXIF", orientation]);
    out.push(table(rows));
    data.notes.forEach((note) => out.push(make("p", note, { class: "note" })));
    data.people.forEach((person, k) => {
      out.push(make("h3", "Person " + k));
      out.push(table([
        ["found by", person.found_by + " (" + fixed(2)(person.score) + ")"],
        ...(person.refined_by ? [["refined by", person.refined_by]] : []),
        ["body", data.body],
        ["distance", fixed(2)(person.transl[2]) + " m"],
      ]));
      out.push(folded("Shape", person.betas.map((value, i) => ["beta " + i, fixed(3)(value)])));
      out.push(folded("Place", [
        ["translation, m", ...person.transl.map(fixed(3))], ["orientation, \u00b0", ...person.global_orient.map(degrees)],
        ["box x, y, px", ...person.box_xywh.slice(0, 2).map(fixed(0))],
        ["box w, h, px", ...person.box_xywh.slice(2).map(fixed(0))],
      ]));
      out.push(folded("Pose, \u00b0 about x, y, z", data.joint_names.slice(1).map((name, j) => [
        name.replaceAll("_", " "), ...person.body_pose.slice(3 * j, 3 * j + 3).map(degrees),
      ])));
    });
    if (data.files.length) {
      out.push(make("h3", "Files"));
      const links = make("p");
      for (const [name, url] of data.files) links.append(make("a", name, { href: url, target: "_blank", rel: "noopener" }), " ");
      out.push(links);
    }
    $("facts").replaceChildren(...out);
  }

  // ---- what the user does ------------------------------------------------------------------------------------------

  const go = (step) => {
    const entry = shown[shown.indexOf(page.entries[open]) + step];
    if (entry) location.replace("#" + entry.index);
  };
  const leave = () => { history.pushState(null, "", location.pathname + location.search); route(); };

  $("slider").oninput = slide;
  $("close").onclick = leave;
  $("previous").onclick = () => go(-1);
  $("next").onclick = () => go(1);
  $("views").onclick = (event) => {
    const { view } = event.target.dataset;
    if (view) { scene?.look(view); press(view); }
  };
  $("canvas").addEventListener("pointerdown", () => press("")); // turned by hand, it is none of the named views
  $("skeleton").onclick = () => {
    const on = $("skeleton").getAttribute("aria-pressed") !== "true";
    $("skeleton").setAttribute("aria-pressed", on);
    scene?.skeleton(on);
  };
  $("facts-button").onclick = () => {
    const hidden = !$("facts").hidden;
    $("facts").hidden = hidden;
    $("facts-button").setAttribute("aria-expanded", !hidden);
    document.querySelector(".panes").classList.toggle("wide", !hidden);
    layout();
  };
  function layout() {
    if (open < 0) return;
    fit(page.entries[open].size);
    scene?.resize();
  }
  addEventListener("resize", layout);
  addEventListener("hashchange", route);
  addEventListener("popstate", route);
  addEventListener("keydown", (event) => {
    if (open < 0) return;
    if (event.key === "Escape") leave();
    const sliding = event.target === $("slider");
    if (event.key === "PageUp" || (event.key === "ArrowLeft" && !sliding)) { event.preventDefault(); go(-1); }
    if (event.key === "PageDown" || (event.key === "ArrowRight" && !sliding)) { event.preventDefault(); go(1); }
  });
  begin();
})();
