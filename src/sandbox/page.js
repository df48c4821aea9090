"use strict";
// Every value is set as text: what platforms were sent is never markup here.
const NAMES = { sina: "新浪微博", tencent: "腾讯", eastday: "东方网", xinmin: "新民网" };
const seen = new Set();
let first = true;

function el(tag, text, kind) {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  if (kind) node.className = kind;
  return node;
}

function post(p) {
  const fresh = !first && !seen.has(p.n);
  seen.add(p.n);
  const kinds = [p.deleted ? "deleted" : "", p.hidden ? "hidden" : "", fresh ? "new" : ""].filter(Boolean).join(" ");
  const node = el("article", undefined, kinds);
  const head = el("header");
  head.append(el("b", p.name || p.handle || "?"), el("time", p.at));
  const foot = el("footer");
  if (p.pictures) foot.append(el("span", "图片 " + p.pictures + " 张"));
  if (p.deleted) foot.append(el("span", p.by_user ? "已删除" : "已被平台删除", "mark"));
  if (p.hidden) foot.append(el("span", "尚未公开", "mark"));
  foot.append(el("span", "编号 " + p.id));
  node.append(head, el("p", p.text), foot);
  return node;
}

function platform(p, second) {
  const node = el("section", undefined, p.api + (second ? " second" : ""));
  const head = el("h2", NAMES[p.name] || p.name);
  head.append(el("span", p.accounts + " 个账号 · " + p.total + " 条"));
  node.append(head);
  if (p.posts.length) node.append(...p.posts.map(post));
  else node.append(el("p", "还没有内容", "empty"));
  return node;
}

function fault(f) {
  const r = f.rule;
  const where = [r.platform, r.account, r.operation].filter(Boolean).join(" ") || "全部";
  return el("li", "故障 " + f.number + " " + r.behaviour + " · " + where + " · 触发 " + f.fired + " 次");
}

async function refresh() {
  const state = document.getElementById("state");
  try {
    const answer = await fetch("/_sandbox/view", { cache: "no-store" });
    const view = await answer.json();
    let statuses = 0;
    const columns = view.platforms.map((p) => platform(p, p.api === "statuses" && statuses++ > 0));
    document.getElementById("timelines").replaceChildren(...columns);
    document.getElementById("faults").replaceChildren(...view.faults.map(fault));
    state.textContent = "请求 " + view.requests + " 次 · 延迟 " + view.latency;
    state.className = "";
    first = false;
  } catch (_) {
    state.textContent = "沙箱已停止";
    state.className = "lost";
  }
  setTimeout(refresh, 1000);
}

refresh();
