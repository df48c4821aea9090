"""Client libraries of the platforms, each at work on the sandbox.

They were written against the live platforms, so what they send and can read is a second opinion on the sandbox's paths,
forms, signatures and answers; the sandbox's own list of posts then says what came in. The argument is the line that
`fabu --json sandbox` prints, the secrets are the variables that `run` sets.
"""

import base64
import io
import json
import os
import random
import sys
import time
from functools import partial

import mastodon
import requests
import twitter
import weibo
import wechatpy
from wechatpy.exceptions import APILimitedException, WeChatClientException

PORTS = json.loads(sys.argv[1])
HOSTS = PORTS["platforms"]
PNG = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGP4DwABAQEAsTj2FAAAAABJRU5ErkJggg==")


def text():
    """A text unlike all before it, with everything that encodings like to spoil."""
    words = "".join(chr(random.randrange(0x4E00, 0x6000)) for _ in range(20))
    return f"【交通】今晚22时起{words}：1+1=2，A&B，100%，“引号”，👍。"


def control(path, body=None):
    """Asks the sandbox's control, or tells it something."""
    call, url = (requests.post if body else requests.get), f"http://{PORTS['control']}/_sandbox/{path}"
    return call(url, json=body, timeout=5).json()


def standing(platform, state):
    control("token", {"account": f"{platform}:shanghai", "state": state})


def came_in(words, pictures=0):
    """The sandbox holds exactly one post with these words and so many pictures."""
    same([(p["pictures"], p["deleted"]) for p in control("posts") if words in p["text"]], [(pictures, False)])


def same(given, wanted):
    assert given == wanted, f"{given!r} in place of {wanted!r}"


def refused(kind, call, *args, **kwargs):
    """The library's own exception for a call that must not pass."""
    try:
        answer = call(*args, **kwargs)
    except kind as error:
        same(type(error), kind)
        return error
    raise AssertionError(f"not refused: {answer}")


def refused_while(platform, state, kind, call, *args, **kwargs):
    """The same, for as long as the account's token is in this state."""
    standing(platform, state)
    try:
        return refused(kind, call, *args, **kwargs)
    finally:
        standing(platform, "good")


class Weibo:
    """sinaweibopy3. Numbers go as strings: it stumbles over any other value since Python 3.10."""

    def __init__(self):
        self.client = weibo.APIClient("1234567890", "sample", domain=HOSTS["sina"])
        self.client.api_url = self.client.api_url.replace("https://", "http://")
        self.client.set_access_token(os.environ["CLIENTS_SINA"], time.time() + 3600)
        self.api = self.client.statuses

    def _texts(self):
        return {post.idstr: post.text for post in self.api.user_timeline.get(count="5").statuses}

    def post_find_delete(self):
        for send, picture in (self.api.update, {}), (self.api.upload, {"pic": io.BytesIO(PNG)}):
            words = text()
            post = send.post(status=words, **picture)
            came_in(words, len(picture))
            same((post.user.idstr, self._texts().get(post.idstr)), ("1800000001", words))
            same(self.api.destroy.post(id=post.idstr).idstr, post.idstr)
            assert post.idstr not in self._texts()
            same(refused(weibo.APIError, self.api.show.get, id=post.idstr).error_code, 20101)

    def refusals(self):
        words = text()
        self.api.update.post(status=words)
        for code, status in [(20019, words), (20017, words + "！"), (20012, "长" * 141), (20008, "")]:
            same(refused(weibo.APIError, self.api.update.post, status=status).error_code, code)
        came_in(words)
        same(refused(weibo.APIError, self.api.upload.post, status=text(), pic=io.BytesIO(b"-")).error_code, 20005)
        error = refused_while("sina", "expired", weibo.APIError, self.api.update.post, status=text())
        same((error.error_code, error.error, error.request), (21327, "expired_token", "/2/statuses/update.json"))


class Wechat:
    """wechatpy. Its token's address is a constant of its own, so that call is sent elsewhere on its way."""

    def __init__(self):
        app, base = json.loads(os.environ["CLIENTS_WEIXIN"]), f"http://{HOSTS['weixin']}/cgi-bin/"
        self.client, self.refused = wechatpy.WeChatClient(**app), partial(refused, WeChatClientException)
        fetch, self.client.API_BASE_URL = self.client._fetch_access_token, base
        self.client._fetch_access_token = lambda url, params: fetch(base + url.rsplit("/", 1)[1], params)

    def _article(self, title, words):
        cover = self.client.material.add("image", ("a.png", PNG))["media_id"]
        inline = self.client.media.upload_image(("a.png", PNG))
        return {"title": title, "content": f'<p>{words}</p><img src="{inline}">', "thumb_media_id": cover}

    def _titles(self):
        items = self.client.freepublish.batchget(0, 20, 1)["item"]
        return {item["article_id"]: item["content"]["news_item"][0]["title"] for item in items}

    def publish_find_delete(self):
        title, words, pages = "地铁停运通知", text(), self.client.freepublish
        draft = self.client.draft.add([self._article(title, words)])["media_id"]
        same(self.client.draft.get(draft)["news_item"][0]["title"], title)
        job = pages.submit(draft)["publish_id"]
        same(self.refused(self.client.draft.get, draft).errcode, 40007)
        state = pages.get(job)
        same(state["publish_status"], 0)
        came_in(words, pictures=1)
        same(self._titles().get(state["article_id"]), title)
        same(pages.delete(state["article_id"])["errcode"], 0)
        assert state["article_id"] not in self._titles()
        same(pages.get(job)["publish_status"], 5)
        same(self.refused(pages.delete, state["article_id"]).errcode, 53600)

    def push_once_and_take_back(self):
        words, push = text(), self.client.message
        draft = self.client.draft.add([self._article("群发通知", words)])["media_id"]
        sent = push.send_mass_article(draft, is_to_all=True, client_msg_id="clients-1")["msg_id"]
        same(push.get_mass(sent)["msg_status"], "SEND_SUCCESS")
        came_in(words, pictures=1)
        same(self.refused(push.send_mass_article, draft, is_to_all=True, client_msg_id="clients-1").errcode, 45066)
        same(push.delete_mass(sent)["errcode"], 0)
        same(push.get_mass(sent)["msg_status"], "DELETE")

    def refusals(self):
        long = self._article("长" * 33, text())
        same(self.refused(self.client.draft.add, [long]).errcode, 45003)
        brief = self.client.media.upload("image", ("a.png", PNG))["media_id"]
        same(self.refused(self.client.draft.add, [{**long, "title": "短", "thumb_media_id": brief}]).errcode, 40007)
        control("faults", {"behaviour": "limit", "platform": "weixin", "operation": "list", "times": 1})
        same(refused(APILimitedException, self._titles).errcode, 45009)

    def replaced_token_is_renewed(self):
        before = self.client.access_token
        standing("weixin", "replaced")
        self._titles()
        assert self.client.access_token != before, "the dead token was taken"
        self.client.secret = "wrong"
        same(self.refused(self.client.fetch_access_token).errcode, 40125)


class Statuses:
    """python-twitter, signing by OAuth 1.0a. Of a refusal it keeps the words alone."""

    def __init__(self, **changed):
        keys = {**json.loads(os.environ["CLIENTS_EASTDAY"]), **changed}
        base = f"http://{HOSTS['eastday']}/api"
        self.api = twitter.Api(*(keys[k] for k in ("ck", "cs", "tk", "ts")), base_url=base, upload_url=base)
        self._post = partial(self.api.PostUpdate, verify_status_length=False)

    def _texts(self):
        return {post.id: post.text for post in self.api.GetUserTimeline(count=20)}

    def post_find_delete(self):
        image = io.BytesIO(PNG)
        image.name, image.mode = "a.png", "rb"
        for picture in (None, image):
            words = text()
            post = self._post(words, media=picture)
            came_in(words, int(picture is not None))
            same((self._texts()[post.id], post.user.screen_name), (post.text, "shanghaifabu"))
            same((post.text[: len(words)], self.api.DestroyStatus(post.id).id), (words, post.id))
            assert post.id not in self._texts()
            assert "No status" in refused(twitter.TwitterError, self.api.DestroyStatus, post.id).message

    def refusals(self):
        words = text()
        self._post(words)
        assert "duplicate" in refused(twitter.TwitterError, self._post, words).message
        assert "Maximum notice size is 140" in refused(twitter.TwitterError, self._post, "长" * 141).message
        came_in(words)
        error = refused_while("eastday", "expired", twitter.TwitterError, self._post, text())
        same(error.message, "Could not authenticate you.")
        for wrong in ("cs", "ts"):
            refused(twitter.TwitterError, Statuses(**{wrong: "wrong"}).api.VerifyCredentials)


class Mastodon:
    """Mastodon.py. It is told the version: it would ask `/api/v2/instance/`, and that slash the sandbox refuses."""

    def __init__(self):
        told = {"mastodon_version": "4.2.0", "version_check_mode": "created", "ratelimit_method": "throw"}
        self.api = mastodon.Mastodon(None, None, os.environ["CLIENTS_SITE"], f"http://{HOSTS['site']}", **told)

    def _posts(self):
        return {post.id: post for post in self.api.account_statuses(self.api.me().id, limit=40)}

    def post_once_find_delete(self):
        for pictures in (0, 1):
            words, media = text(), [self.api.media_post(PNG, "image/png", description="示意图")] * pictures
            keyed = {"language": "zh", "idempotency_key": f"clients-{pictures}", "media_ids": media or None}
            post, again = (self.api.status_post(words, **keyed) for _ in range(2))
            same(again.id, post.id)
            came_in(words, pictures)
            found = self._posts()[post.id]
            same((found.account.acct, found.language, found.created_at), ("shanghaifabu", "zh", post.created_at))
            same([one.type for one in found.media_attachments], ["image"] * pictures)
            same((self.api.status_source(post.id).text, self.api.status_delete(post.id).text), (words, words))
            assert post.id not in self._posts()
            same(refused(mastodon.MastodonNotFoundError, self.api.status, post.id).args[1], 404)

    def refusals(self):
        same(refused(mastodon.MastodonAPIError, self.api.status_post, "长" * 501).args[1], 422)
        control("faults", {"behaviour": "limit", "platform": "site", "operation": "post", "times": 1})
        refused(mastodon.MastodonRatelimitError, self.api.status_post, text())
        error = refused_while("site", "revoked", mastodon.MastodonUnauthorizedError, self.api.status_post, text())
        same(error.args[1::2], (401, "The access token was revoked"))


def main():
    passed = failed = 0
    for library in (Weibo, Wechat, Statuses, Mastodon):
        for name in [name for name in vars(library) if not name.startswith("_")]:
            try:
                getattr(library(), name)()
                passed += 1
                print(f"ok {library.__name__.lower()} {name}", flush=True)
            except Exception as error:
                failed += 1
                print(f"FAILED {library.__name__.lower()} {name}: {error!r}", flush=True)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
