"""Client libraries of the platforms, each at work on the sandbox.

They were written against the live platforms, so what they send and what they can read is a second opinion on the
sandbox's paths, forms, signatures and answers. Every case posts, looks, takes down or is refused through the library
alone; the sandbox's own list of posts then says what really came in. The argument is the line `fabu --json sandbox`
prints; the secrets are the variables that `run` sets.
"""

import base64
import io
import itertools
import json
import os
import sys
import time
import traceback
import urllib.request

import mastodon
import twitter
import weibo
import wechatpy
from wechatpy.exceptions import APILimitedException, WeChatClientException

PORTS = json.loads(sys.argv[1])
HOSTS = PORTS["platforms"]
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)
CASES = []
NUMBERS = itertools.count(1)


def case(function):
    CASES.append(function)
    return function


def text():
    """A text nobody has posted yet, with all that encodings like to spoil."""
    return f"【交通】今晚22时起，地铁{next(NUMBERS)}号线停运：1+1=2，A&B，100%，“引号”，👍。"


def control(path, body=None):
    """Asks the sandbox's control, or tells it something."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://{PORTS['control']}/_sandbox/{path}", data)
    request.add_header("content-type", "application/json")
    with urllib.request.urlopen(request, timeout=5) as answer:
        return json.load(answer)


def standing(platform, state):
    control("token", {"account": f"{platform}:shanghai", "state": state})


def came_in(words, pictures=0):
    """The sandbox holds exactly one post with these words and so many pictures."""
    posts = [(post["pictures"], post["deleted"]) for post in control("posts") if words in post["text"]]
    assert posts == [(pictures, False)], posts


def refused(kind, call, *args, **kwargs):
    """The library's own exception for a call that must not pass."""
    try:
        answer = call(*args, **kwargs)
    except kind as error:
        assert type(error) is kind, f"{type(error).__name__} in place of {kind.__name__}"
        return error
    raise AssertionError(f"not refused: {answer}")


def same(given, wanted):
    assert given == wanted, f"{given!r} in place of {wanted!r}"


# sinaweibopy3: `weibo`


def sina():
    client = weibo.APIClient("1234567890", "sample", domain=HOSTS["sina"])
    client.api_url = client.api_url.replace("https://", "http://")
    client.set_access_token(os.environ["CLIENTS_SINA"], time.time() + 3600)
    return client


def sina_texts():
    # Numbers go as strings: the library stumbles over any other value since Python 3.10.
    return {post.idstr: post.text for post in sina().statuses.user_timeline.get(count="5").statuses}


@case
def weibo_post_find_delete():
    words = text()
    post = sina().statuses.update.post(status=words)
    same(post.user.idstr, "1800000001")
    came_in(words)
    same(sina_texts().get(post.idstr), words)
    same(sina().statuses.show.get(id=post.idstr).text, words)
    same(sina().statuses.destroy.post(id=post.idstr).idstr, post.idstr)
    assert post.idstr not in sina_texts()
    same(refused(weibo.APIError, sina().statuses.show.get, id=post.idstr).error_code, 20101)


@case
def weibo_picture():
    words = text()
    post = sina().statuses.upload.post(status=words, pic=io.BytesIO(PNG))
    came_in(words, pictures=1)
    assert post.original_pic.startswith("http"), post
    same(sina_texts().get(post.idstr), words)


@case
def weibo_refusals():
    words = text()
    update = sina().statuses.update.post
    update(status=words)
    same(refused(weibo.APIError, update, status=words).error_code, 20019)
    same(refused(weibo.APIError, update, status="长" * 141).error_code, 20012)
    same(refused(weibo.APIError, update).error_code, 10016)
    same(refused(weibo.APIError, sina().statuses.upload.post, status=text(), pic=io.BytesIO(b"-")).error_code, 20005)
    came_in(words)


@case
def weibo_dead_token():
    standing("sina", "expired")
    error = refused(weibo.APIError, sina().statuses.update.post, status=text())
    standing("sina", "good")
    same((error.error_code, error.error, error.request), (21327, "expired_token", "/2/statuses/update.json"))


@case
def weibo_limits():
    limits = sina().account.rate_limit_status.get()
    assert 0 < limits.remaining_user_hits < limits.user_limit, limits


# wechatpy: `wechat`


class Weixin(wechatpy.WeChatClient):
    """The client with the sandbox's address in place of its own two."""

    API_BASE_URL = f"http://{HOSTS['weixin']}/cgi-bin/"

    def fetch_access_token(self):
        grant = {"grant_type": "client_credential", "appid": self.appid, "secret": self.secret}
        return self._fetch_access_token(f"{self.API_BASE_URL}token", grant)


def weixin():
    return Weixin(**json.loads(os.environ["CLIENTS_WEIXIN"]))


def article(client, title, words):
    cover = client.material.add("image", ("a.png", PNG))["media_id"]
    inline = client.media.upload_image(("a.png", PNG))
    return {"title": title, "content": f'<p>{words}</p><img src="{inline}">', "thumb_media_id": cover}


def titles(client):
    items = client.freepublish.batchget(0, 20, 1)["item"]
    return {item["article_id"]: item["content"]["news_item"][0]["title"] for item in items}


@case
def wechat_draft_publish_find_delete():
    client, words = weixin(), text()
    title = f"地铁停运通知{next(NUMBERS)}"
    draft = client.draft.add([article(client, title, words)])["media_id"]
    same(client.draft.get(draft)["news_item"][0]["title"], title)
    job = client.freepublish.submit(draft)["publish_id"]
    same(refused(WeChatClientException, client.draft.get, draft).errcode, 40007)
    state = client.freepublish.get(job)
    until = time.monotonic() + 10
    while state["publish_status"] == 1 and time.monotonic() < until:
        time.sleep(0.5)
        state = client.freepublish.get(job)
    same(state["publish_status"], 0)
    came_in(words, pictures=1)
    same(titles(client).get(state["article_id"]), title)
    same(client.freepublish.delete(state["article_id"])["errcode"], 0)
    assert state["article_id"] not in titles(client)
    same(client.freepublish.get(job)["publish_status"], 5)
    same(refused(WeChatClientException, client.freepublish.delete, state["article_id"]).errcode, 53600)


@case
def wechat_mass_send_and_take_back():
    client, words = weixin(), text()
    draft = client.draft.add([article(client, "群发通知", words)])["media_id"]
    key = f"clients-{next(NUMBERS)}"
    sent = client.message.send_mass_article(None, draft, is_to_all=True, client_msg_id=key)["msg_id"]
    same(client.message.get_mass(sent)["msg_status"], "SEND_SUCCESS")
    came_in(words, pictures=1)
    again = refused(WeChatClientException, client.message.send_mass_text, None, "再发", True, client_msg_id=key)
    same(again.errcode, 45066)
    same(client.message.delete_mass(sent)["errcode"], 0)
    same(client.message.get_mass(sent)["msg_status"], "DELETE")


@case
def wechat_refusals():
    client = weixin()
    long = article(client, "长" * 33, text())
    same(refused(WeChatClientException, client.draft.add, [long]).errcode, 45003)
    temporary = client.media.upload("image", ("a.png", PNG))["media_id"]
    uncovered = {**long, "title": "短", "thumb_media_id": temporary}
    same(refused(WeChatClientException, client.draft.add, [uncovered]).errcode, 40007)
    control("faults", {"behaviour": "limit", "platform": "weixin", "operation": "list", "times": 1})
    same(refused(APILimitedException, titles, client).errcode, 45009)


@case
def wechat_replaced_token_is_renewed():
    client = weixin()
    titles(client)
    before = client.access_token
    standing("weixin", "replaced")
    titles(client)
    assert client.access_token != before, "the dead token was taken"
    client.secret = "wrong"
    same(refused(WeChatClientException, client.fetch_access_token).errcode, 40125)


# python-twitter: `statuses`, signed by OAuth 1.0a


def eastday(**changed):
    keys = {**json.loads(os.environ["CLIENTS_EASTDAY"]), **changed}
    base = f"http://{HOSTS['eastday']}/api"
    return twitter.Api(keys["ck"], keys["cs"], keys["tk"], keys["ts"], base_url=base, upload_url=base)


def eastday_texts():
    return {post.id: post.text for post in eastday().GetUserTimeline(count=20)}


def post_eastday(words, **more):
    return eastday().PostUpdate(words, verify_status_length=False, **more)


@case
def statuses_post_find_delete():
    words = text()
    post = post_eastday(words)
    same((post.text, post.user.screen_name), (words, "shanghaifabu"))
    came_in(words)
    same(eastday_texts().get(post.id), words)
    same(eastday().DestroyStatus(post.id).id, post.id)
    assert post.id not in eastday_texts()
    error = refused(twitter.TwitterError, eastday().DestroyStatus, post.id)
    same(error.message, "No status found with that ID.")


@case
def statuses_picture():
    words = text()
    image = io.BytesIO(PNG)
    image.name, image.mode = "a.png", "rb"
    post = post_eastday(words, media=image)
    came_in(words, pictures=1)
    assert eastday_texts()[post.id].startswith(words)


@case
def statuses_refusals():
    words = text()
    post_eastday(words)
    assert "duplicate" in refused(twitter.TwitterError, post_eastday, words).message
    assert "Maximum notice size is 140" in refused(twitter.TwitterError, post_eastday, "长" * 141).message
    came_in(words)


@case
def statuses_dead_token_and_wrong_signature():
    same(eastday().VerifyCredentials().screen_name, "shanghaifabu")
    standing("eastday", "expired")
    error = refused(twitter.TwitterError, post_eastday, text())
    standing("eastday", "good")
    same(error.message, "Could not authenticate you.")
    refused(twitter.TwitterError, eastday(cs="wrong").VerifyCredentials)
    refused(twitter.TwitterError, eastday(ts="wrong").VerifyCredentials)


# Mastodon.py: `mastodon`


def site():
    token = os.environ["CLIENTS_SITE"]
    return mastodon.Mastodon(access_token=token, api_base_url=f"http://{HOSTS['site']}", ratelimit_method="throw")


def site_posts():
    return {post.id: post for post in site().account_statuses(site().me().id, limit=40)}


@case
def mastodon_post_find_delete():
    words = text()
    post = site().status_post(words, language="zh", visibility="public")
    came_in(words)
    found = site_posts()[post.id]
    same((found.account.acct, found.visibility, found.language), ("shanghaifabu", "public", "zh"))
    same(found.created_at, post.created_at)
    same(site().status_source(post.id).text, words)
    same(site().status_delete(post.id).text, words)
    assert post.id not in site_posts()
    same(refused(mastodon.MastodonNotFoundError, site().status, post.id).args[1], 404)


@case
def mastodon_picture():
    words = text()
    media = site().media_post(PNG, "image/png", description="示意图", synchronous=True)
    post = site().status_post(words, media_ids=[media])
    came_in(words, pictures=1)
    same([one.type for one in site_posts()[post.id].media_attachments], ["image"])


@case
def mastodon_key_posts_once():
    words = text()
    first, second = (site().status_post(words, idempotency_key="clients-1") for _ in range(2))
    same(second.id, first.id)
    came_in(words)


@case
def mastodon_refusals():
    limit = site().instance_v2().configuration.statuses.max_characters
    error = refused(mastodon.MastodonAPIError, site().status_post, "长" * (limit + 1))
    same(error.args[1], 422)
    control("faults", {"behaviour": "limit", "platform": "site", "operation": "post", "times": 1})
    refused(mastodon.MastodonRatelimitError, site().status_post, text())


@case
def mastodon_dead_token():
    standing("site", "revoked")
    error = refused(mastodon.MastodonUnauthorizedError, site().status_post, text())
    standing("site", "good")
    same((error.args[1], error.args[3]), (401, "The access token was revoked"))


def main():
    failed = 0
    for one in CASES:
        try:
            one()
            print(f"ok {one.__name__}", flush=True)
        except Exception as error:
            failed += 1
            where = traceback.extract_tb(error.__traceback__)
            line = next((at.lineno for at in reversed(where) if at.filename == __file__), 0)
            print(f"FAILED {one.__name__}: {type(error).__name__} at line {line}: {error}", flush=True)
    print(f"{len(CASES) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
