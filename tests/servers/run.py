#!/usr/bin/env python3
"""Thirty texts on a real server of Mastodon's API, with answers and without.

    tests/servers/run                                    # snac of Debian's packages, in a folder of its own
    tests/servers/run --base-url URL --token TOKEN       # a server of one's own, on an account made for this

Between fabu and the server stands a proxy that can lose the answer to a post after the server has made it. A run is
good when each text stands on the server exactly once, and each delivery is published with the id of such a post, or
waits for a person with that post among the candidates. Needs Python 3; for snac also root and debootstrap.
"""

import argparse
import http.client
import http.server
import json
import os
import pathlib
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse

HERE = pathlib.Path(__file__).resolve().parent
# A delivery that can be settled by looking is settled well within this.
PATIENCE_S = 150
# A server that deletes does so within this.
GONE_WITHIN_S = 60


class Unix(http.client.HTTPConnection):
    """HTTP on fabu's socket."""

    def __init__(self, path):
        super().__init__("fabu")
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(30)
        self.sock.connect(self.path)


def ask(connection, method, path, body=None, headers=None):
    data = None if body is None else json.dumps(body)
    connection.request(method, path, data, {"content-type": "application/json", **(headers or {})})
    answer = connection.getresponse()
    text = answer.read()
    if answer.status >= 400:
        raise SystemExit(f"{method} {path}: {answer.status} {text[:300]!r}")
    return json.loads(text) if text else None


def proxy(base, loses):
    """Passes requests on, one connection each; the answer to a post is lost where that is asked for."""
    target = urllib.parse.urlsplit(base)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def pass_on(self):
            length = int(self.headers.get("content-length") or 0)
            body = self.rfile.read(length) if length else None
            kind = http.client.HTTPSConnection if target.scheme == "https" else http.client.HTTPConnection
            upstream = kind(target.hostname, target.port, timeout=30)
            headers = {k: v for k, v in self.headers.items() if k.lower() not in ("host", "connection", "accept-encoding")}
            upstream.request(self.command, target.path + self.path, body, headers)
            answer = upstream.getresponse()
            text = answer.read()
            if loses and self.command == "POST" and self.path.endswith("/api/v1/statuses"):
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            self.send_response_only(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                    self.send_header(name, value)
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_DELETE = pass_on

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, f"http://127.0.0.1:{server.server_port}"


class Server:
    """The account as the server shows it, asked directly."""

    def __init__(self, base, token):
        self.base, self.token = base, token
        self.id = self.get("/api/v1/accounts/verify_credentials")["id"]

    def get(self, path):
        return self.ask("GET", path)

    def ask(self, method, path):
        target = urllib.parse.urlsplit(self.base)
        kind = http.client.HTTPSConnection if target.scheme == "https" else http.client.HTTPConnection
        connection = kind(target.hostname, target.port, timeout=30)
        return ask(connection, method, target.path + path, None, {"authorization": f"Bearer {self.token}"})

    def posts(self):
        """All of them: servers differ in what a page is."""
        found, below = {}, ""
        for _ in range(50):
            page = self.get(f"/api/v1/accounts/{self.id}/statuses?limit=40{below}")
            new = [post for post in page if post["id"] not in found]
            if not new:
                break
            found.update((post["id"], post) for post in new)
            below = f"&max_id={urllib.parse.quote(page[-1]['id'])}"
        return found


def city(folder, base, token, texts, round_):
    """A city of one account, whose queue is the texts."""
    (folder / "queue").mkdir(parents=True)
    secret = folder / "token"
    secret.write_text(token)
    secret.chmod(0o600)
    (folder / "fabu.yaml").write_text(json.dumps({
        "timezone": "Asia/Shanghai", "queue": "queue", "accounts": "accounts.yaml", "ledger": "sqlite:state/fabu.db",
        "socket": str(folder / "fabu.sock"),
        "platforms": {"site": {
            "api": "mastodon", "base_url": base, "read_back": {"after": ["2s", "5s"], "settle": "10s"},
            "limits": {"connections": 4},
        }},
    }))
    (folder / "accounts.yaml").write_text(json.dumps({
        "units": [{"id": "city", "name": "上海", "accounts": {"site": {"handle": "shanghai", "token": f"file:{secret}"}}}],
    }))
    entries = [{"id": f"{round_}-{n}", "text": text, "to": ["city"]} for n, text in enumerate(texts)]
    (folder / "queue" / "texts.yaml").write_text(json.dumps({"announcements": entries}, ensure_ascii=False))


def settled(rows):
    return all(row["state"] in ("published", "failed", "expired", "deleted", "cancelled") or row["needs_person"] for row in rows)


def run(fabu, server, texts, loses):
    """One round; returns what was wrong."""
    # What stands there from before must not be the same words: a new ledger would find those.
    round_ = secrets.token_hex(3)
    texts = [f"{text} {round_}" for text in texts]
    before = set(server.posts())
    listening, base = proxy(server.base, loses)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="fabu-servers-"))
    city(folder, base, server.token, texts, round_)
    log = open(folder / "log", "w")
    daemon = subprocess.Popen([fabu, "--config", folder / "fabu.yaml", "run"], stdout=log, stderr=log)
    faults, recognised, shown, deleted = [], 0, 0, "not deleted"
    try:
        rows, end = [], time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            time.sleep(1)
            if daemon.poll() is not None:
                raise SystemExit(f"fabu ended: {(folder / 'log').read_text()[-2000:]}")
            if not (folder / "fabu.sock").exists():
                continue
            rows = ask(Unix(str(folder / "fabu.sock")), "GET", "/v1/deliveries?limit=1000")["items"]
            if len(rows) == len(texts) and settled(rows):
                break
        posts = {post_id: post for post_id, post in server.posts().items() if post_id not in before}
        if len(posts) != len(texts):
            faults.append(f"{len(texts)} texts, and {len(posts)} posts on the server")
        taken = set()
        for row in rows:
            n = int(row["announcement"].rsplit("-", 1)[1])
            if row["state"] == "published":
                post_id = row["receipt"]["post_id"]
                recognised += 1
                if post_id not in posts or post_id in taken:
                    faults.append(f"text {n} is published as {post_id}, which is nobody's post or another's")
                taken.add(post_id)
            elif row["needs_person"]:
                shown += 1
                found = ask(Unix(str(folder / "fabu.sock")), "GET", f"/v1/deliveries/{row['id']}/candidates")["posts"]
                if not any(post["id"] in posts for post in found):
                    faults.append(f"text {n} waits for a person, and its post is not among {len(found)} candidates")
                print(f"    a person is shown: {texts[n]!r}: {(row['reason'] or {}).get('en') if isinstance(row['reason'], dict) else row['reason']}")
            else:
                faults.append(f"text {n} is {row['state']}: {row['reason']}")
        # What was posted can be taken down again.
        for row in rows:
            ask(Unix(str(folder / "fabu.sock")), "POST", f"/v1/announcements/{row['announcement']}/delete", {})
        end = time.monotonic() + GONE_WITHIN_S
        while time.monotonic() < end and set(server.posts()) & taken:
            time.sleep(1)
        left = set(server.posts()) & taken
        told = ask(Unix(str(folder / "fabu.sock")), "GET", "/v1/deliveries?limit=1000")["items"]
        untold = [row for row in told if (row["receipt"] or {}).get("post_id") in left and row["state"] == "deleted"]
        if untold:
            faults.append(f"{len(untold)} posts are said to be deleted, and stand")
        deleted = "deleted again" if not left else f"{len(left)} of them the server does not delete"
    finally:
        daemon.terminate()
        daemon.wait(30)
        listening.shutdown()
    kind = "lost" if loses else "arrive"
    print(f"  answers {kind}: {len(texts)} texts, {recognised} recognised, {shown} shown to a person, {deleted}, {len(faults)} faults")
    for fault in faults:
        print(f"    {fault}")
    if not faults:
        shutil.rmtree(folder)
    return faults


class Snac:
    """snac from Debian's packages, in a root of its own; found again where it was made before."""

    ROOT = pathlib.Path(os.environ.get("FABU_SNAC", "/var/tmp/fabu-snac"))

    def __enter__(self):
        if not (self.ROOT / "usr/bin/snac").exists():
            print("making a root with snac (about a minute)")
            subprocess.run(
                ["debootstrap", "--variant=minbase", "--include=snac2,ca-certificates", "trixie", str(self.ROOT)]
                + [mirror for mirror in [debian()] if mirror], check=True, stdout=subprocess.DEVNULL)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        where = f"/srv/{secrets.token_hex(4)}"
        inside = ["chroot", str(self.ROOT), "snac"]
        subprocess.run(inside + ["init", where], input=f"127.0.0.1\n{port}\nlocalhost:{port}\n\n\n".encode(), check=True,
                       stdout=subprocess.DEVNULL)
        made = subprocess.run(inside + ["adduser", where], input=b"shanghai\n", check=True, stdout=subprocess.PIPE)
        password = made.stdout.decode().split("password is ")[1].split()[0]
        self.daemon = subprocess.Popen(inside + ["httpd", where], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.folder = self.ROOT / where.lstrip("/")
        base = f"http://127.0.0.1:{port}"
        for _ in range(50):
            time.sleep(0.2)
            try:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
                body = urllib.parse.urlencode({"login": "shanghai", "passwd": password})
                connection.request("POST", "/oauth/x-snac-get-token", body, {
                    "content-type": "application/x-www-form-urlencoded", "host": f"localhost:{port}"})
                token = connection.getresponse().read().decode().split()[-1]
                return Server(base, token)
            except OSError:
                continue
        raise SystemExit("snac does not answer")

    def __exit__(self, *_):
        self.daemon.terminate()
        self.daemon.wait(10)
        shutil.rmtree(self.folder, ignore_errors=True)


def debian():
    """The mirror this machine takes its packages from, where it says so."""
    for file in [pathlib.Path("/etc/apt/sources.list"), *pathlib.Path("/etc/apt/sources.list.d").glob("*.sources")]:
        for line in file.read_text().splitlines() if file.exists() else []:
            words = line.split()
            if words[:1] in (["URIs:"], ["deb"]):
                return next(word for word in words if "://" in word)
    return None


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--base-url")
    arguments.add_argument("--token")
    arguments.add_argument("--fabu", default=str(HERE.parent.parent / "target/debug/fabu"))
    arguments.add_argument("--texts", default=str(HERE / "texts.json"))
    given = arguments.parse_args()
    texts = json.loads(pathlib.Path(given.texts).read_text())
    faults = []
    for loses in (True, False):
        if given.base_url:
            # One round: to a new ledger what stands from another one would resemble this.
            faults += run(given.fabu, Server(given.base_url.rstrip("/"), given.token or ""), texts, loses)
            break
        with Snac() as server:
            faults += run(given.fabu, server, texts, loses)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
