#!/usr/bin/env python3
"""A city's whole day, squeezed, through the real daemon against the real sandbox; then judged.

    tests/city/run.py CITY [--fabu target/release/fabu] [--squeeze 60] [--faults 0.01] [--keep]

CITY is a folder with `make.py`, which writes accounts, secrets and a queue made for now. Account and host
limits are off on both sides. With `--faults P` each of the 29 behaviours of `fabu sandbox` is met with that
probability. The judgement is made from the sandbox's own records, not from what the daemon says of itself:
every post once, every receipt a post of its account, every delivery published, or ended as a fault that its
account met lets it end. Exit 1 if anything is otherwise. Needs Python 3 and nothing else.
"""

import argparse
import collections
import json
import os
import pathlib
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request

# How a delivery may end that is not published, and the faults (`platforms.md` 5) that can have brought it there.
ANY_DELAY = {"proxy_page", "cut_body", "reset_after", "reset_before", "black_hole", "delayed", "unreachable", "stale",
             "redirect", "overload", "blacklist", "limit", "error", "pending", "review", "latency", "deleted"}
ENDS = {
    ("failed", "credential"): {"token", "captcha", "error", "unfit"},
    ("failed", "limit"): {"limit", "overload", "error"},
    ("failed", "content"): {"duplicate", "error", "unfit"},
    ("failed", "policy"): {"review", "pending", "error", "deleted"},
    ("failed", "media"): {"error", "unfit"},
    ("failed", "platform"): {"unreachable", "blacklist", "error", "overload"},
    ("unknown", None): ANY_DELAY | {"eaten", "unaudited", "silent_cut", "clock", "rewritten", "token", "captcha"},
    ("accepted", None): {"delayed", "review", "pending"},
    ("expired", None): ANY_DELAY,
    # Until the platform's next hour, which may lie behind the end of the squeezed day.
    ("ready", None): {"limit", "error", "overload"},
    ("retrying", None): {"limit", "error", "overload"},
}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("city", type=pathlib.Path)
    parser.add_argument("--fabu", default="target/release/fabu")
    parser.add_argument("--squeeze", default="60")
    parser.add_argument("--faults", type=float, default=0.0)
    parser.add_argument("--minutes", type=float, default=40, help="give up after this long")
    parser.add_argument("--keep", action="store_true", help="leave the folder")
    return parser.parse_args()


def free_ports(n):
    """The first of n ports in a row that are free now."""
    for first in range(19001, 60000, 16):
        held = []
        try:
            for port in range(first, first + n):
                one = socket.socket()
                held.append(one)
                one.bind(("127.0.0.1", port))
            return first
        except OSError:
            continue
        finally:
            for one in held:
                one.close()
    sys.exit("no free ports")


def prepare(args, folder):
    made = ["python3", str(args.city / "make.py"), "--out", str(folder), "--day", "now", "--offset", "50",
            "--squeeze", args.squeeze, "--secrets", str(folder / "secrets")]
    subprocess.run(made, check=True, stdout=subprocess.DEVNULL)
    # Texts that are over length are what `fabu check` is tried on; they are faults here.
    (folder / "queue" / "length-over.yaml").unlink(missing_ok=True)
    first = free_ports(5)
    # The control first, then the platforms by name.
    ports = dict(zip(["eastday", "sina", "tencent", "xinmin"], range(first + 1, first + 5)))
    off = "account_per_hour: off, account_per_day: off, host_per_hour: off"
    config = "timezone: Asia/Shanghai\nqueue: queue\naccounts: accounts\nplatforms:\n"
    for name, api, most in [("sina", "weibo", 400), ("tencent", "tencent-weibo", 250), ("eastday", "statuses", 75),
                            ("xinmin", "statuses", 76)]:
        config += (f'  {name}: {{api: {api}, base_url: "http://127.0.0.1:{ports[name]}", '
                   f"limits: {{{off}, connections: {most}}}}}\n")
    (folder / "fabu.yaml").write_text(config)
    return first


def rules(probability):
    if not probability:
        return []
    return [part for n in range(1, 30)
            for part in ("--fault", json.dumps({"behaviour": n, "probability": probability}))]


def asked(port, what):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/_sandbox/{what}", timeout=60) as answer:
        body = json.load(answer)
    return body if isinstance(body, list) else body[what]


def counts(folder):
    """Deliveries by state, and how many whose hour has come, or comes soon, still wait for anything."""
    db = sqlite3.connect(f"file:{folder}/state/fabu.db?mode=ro", uri=True, timeout=30)
    states = dict(db.execute("SELECT state, count(*) FROM deliveries GROUP BY state"))
    # The repeats of the coming day are not part of the squeezed one.
    soon = (time.time() + 120) * 1e6
    waiting = db.execute("SELECT count(*) FROM deliveries WHERE next_at IS NOT NULL AND at < ?", (soon,)).fetchone()[0]
    db.close()
    return states, waiting


def wait(folder, minutes):
    end, quiet = time.time() + minutes * 60, 0
    while time.time() < end and quiet < 3:
        time.sleep(10)
        try:
            states, waiting = counts(folder)
        except sqlite3.Error:
            continue
        print(f"\r{time.strftime('%H:%M:%S')} {states} waiting {waiting}   ", end="", file=sys.stderr, flush=True)
        quiet = quiet + 1 if states and waiting == 0 else 0
    print(file=sys.stderr)
    return quiet >= 3


def judge(folder, port, with_faults):
    posts, requests = asked(port, "posts"), asked(port, "requests")
    names = {rule["number"]: rule["rule"]["behaviour"] for rule in asked(port, "faults")}
    for request in requests:
        request["fault"] = names.get(request["fault"])
    met = collections.defaultdict(set)
    for request in requests:
        if request.get("fault"):
            # One that was refused before it was read is nobody's but its platform's.
            account = request["account"] or request.get("platform") or ""
            met[account].add(request["fault"])
            met[account.split(":")[0]].add(request["fault"])
    db = sqlite3.connect(f"file:{folder}/state/fabu.db?mode=ro", uri=True)
    db.row_factory = sqlite3.Row
    rows = db.execute("SELECT * FROM deliveries").fetchall()
    wrong = []

    standing = collections.Counter((p["account"], p["text"]) for p in posts)
    # Two posts of a text that the platform itself took down in between, with the answer lost, cannot be told from none.
    ours = {(r["account"], r["post_id"]) for r in rows if r["state"] == "deleted"}
    gone = {(p["account"], p["text"]) for p in posts if p["deleted"] and (p["account"], str(p["id"])) not in ours}
    twice = [k for k, n in standing.items() if n > 1]
    unavoidable = [k for k in twice if k in gone]
    wrong += [f"twice: {k[0]} {k[1][:40]}" for k in twice if k not in gone]

    ids = {(p["account"], str(p["id"])) for p in posts}
    receipts = collections.Counter((r["account"], r["post_id"]) for r in rows if r["post_id"])
    wrong += [f"one post for two receipts: {k}" for k, n in receipts.items() if n > 1]
    ends = collections.Counter()
    for row in rows:
        state, kind, account = row["state"], row["class"], row["account"]
        ends[(state, kind)] += 1
        where = f"{account} {row['occurrence']}"
        if state in ("published", "deleted"):
            if row["post_id"] and (account, row["post_id"]) not in ids:
                wrong.append(f"a receipt without a post: {where} {row['post_id']}")
            if row["lateness_us"] is not None and row["lateness_us"] < 0:
                wrong.append(f"early: {where}")
            continue
        if state in ("scheduled", "cancelled"):
            continue
        allowed = ENDS.get((state, kind), ENDS.get((state, None), set()))
        platform = account.split(":")[0]
        if not with_faults or not allowed & (met[account] | met[platform]):
            reason = json.loads(row["reason"] or "{}").get("en", "")
            wrong.append(f"{state} {kind or ''} without a fault that explains it: {where}: {reason[:80]}")
    late = sorted((r["lateness_us"] or 0) / 1e6 for r in rows if r["lateness_us"] is not None)
    print(f"posts {len(posts)}, deliveries {len(rows)}, accounts {len({r['account'] for r in rows})}")
    for (state, kind), n in sorted(ends.items(), key=str):
        print(f"  {state:<10} {kind or '':<11} {n}")
    print(f"faults met: {dict(collections.Counter(r['fault'] for r in requests if r.get('fault')))}")
    if late:
        print(f"lateness: median {late[len(late) // 2]:.3f} s, most {late[-1]:.3f} s")
    if unavoidable:
        print(f"taken down by the platform and sent again, the answer lost: {len(unavoidable)}")
    return wrong


def main():
    args = arguments()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="fabu-city-"))
    first = prepare(args, folder)
    fabu = [os.path.abspath(args.fabu), "--config", str(folder / "fabu.yaml")]
    log = open(folder / "log", "w")
    sandbox = subprocess.Popen(fabu + ["sandbox", "--port", str(first), "--limits", "off", "--duplicates", "exact"]
                               + rules(args.faults), stdout=log, stderr=log)
    time.sleep(3)
    daemon = subprocess.Popen(fabu + ["run"], stdout=log, stderr=log)
    try:
        ended = wait(folder, args.minutes)
        wrong = judge(folder, first, args.faults > 0)
    finally:
        daemon.send_signal(signal.SIGTERM)
        daemon.wait(timeout=60)
        sandbox.terminate()
        sandbox.wait(timeout=60)
    if not ended:
        wrong.append(f"not at rest after {args.minutes} minutes")
    for line in wrong[:50]:
        print("WRONG", line)
    print(f"{len(wrong)} wrong" if wrong else "all as it must be")
    if args.keep or wrong:
        print(f"kept in {folder}", file=sys.stderr)
    else:
        subprocess.run(["rm", "-rf", str(folder)], check=True)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
