//! WeChat's access tokens: made from the app's secret, kept while they are good, asked for one at a time.
//!
//! A token belongs to an app and may die before its time when another program forces a new one. A token
//! that is refused is forgotten; when the next one is refused too, it is the credential that is bad. A
//! token lives in memory only and is never written into words.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::json;

use super::Call;
use super::reply::{Ask, code_of, exchange, text_of};
use super::wechat::classify;
use crate::clock::Mono;
use crate::core::delivery::{Failure, Scope};
use crate::core::words::Words;

/// In its last five minutes a token is followed by the next one; asking a little later is sure to get it.
const EARLY: Duration = Duration::from_secs(240);
/// A token's life, where the answer does not tell it, and at most.
const LIFE_S: i64 = 7200;

/// The tokens of all apps, by app id.
#[derive(Default)]
pub struct Tokens(Mutex<BTreeMap<String, Held>>);

#[derive(Default)]
struct Held {
    /// Whoever has it asks for the token; the others wait for what comes of it.
    turn: Arc<tokio::sync::Mutex<()>>,
    token: Option<(String, Mono)>,
    /// The token before was refused, and none has worked since.
    refused: bool,
}

/// A token and the app it belongs to.
pub struct Token {
    app: String,
    pub value: String,
}

impl Tokens {
    /// The app's token, made anew unless a good one is at hand.
    pub async fn get(&self, call: &Call<'_>, base_url: &str) -> Result<Token, Failure> {
        let (app, secret) = app(call)?;
        if let Some(value) = self.held(&app, call) {
            return Ok(Token { app, value });
        }
        let turn = self.lock().entry(app.clone()).or_default().turn.clone();
        let _turn = turn.lock().await;
        // Somebody else may have fetched it while this one waited.
        if let Some(value) = self.held(&app, call) {
            return Ok(Token { app, value });
        }
        let value = self.fetch(call, base_url, &app, &secret).await?;
        Ok(Token { app, value })
    }

    /// Asks for the token whether or not one is at hand: that is how the app's secret is checked.
    pub async fn renew(&self, call: &Call<'_>, base_url: &str) -> Result<(), Failure> {
        let (app, secret) = app(call)?;
        let turn = self.lock().entry(app.clone()).or_default().turn.clone();
        let _turn = turn.lock().await;
        self.fetch(call, base_url, &app, &secret).await?;
        Ok(())
    }

    /// The platform took the token.
    pub fn worked(&self, token: &Token) {
        if let Some(held) = self.lock().get_mut(&token.app) {
            held.refused = false;
        }
    }

    /// The platform refused the token: forgotten the first time, a matter for a person the second.
    pub fn refused(&self, token: &Token, why: Words) -> Failure {
        let mut tokens = self.lock();
        let held = tokens.entry(token.app.clone()).or_default();
        let is_held = held.token.as_ref().is_some_and(|(value, _)| *value == token.value);
        if is_held {
            held.token = None;
        }
        // One that had been replaced meanwhile says nothing about the new one.
        let again = is_held && std::mem::replace(&mut held.refused, true);
        if again { Failure::Credential(Scope::Account, why) } else { Failure::NotSent(why) }
    }

    fn held(&self, app: &str, call: &Call<'_>) -> Option<String> {
        let now = call.clock.mono();
        let tokens = self.lock();
        let (value, until) = tokens.get(app)?.token.as_ref()?;
        (now.0 + EARLY < until.0).then(|| value.clone())
    }

    async fn fetch(&self, call: &Call<'_>, base_url: &str, app: &str, secret: &str) -> Result<String, Failure> {
        let body = json!({
            "grant_type": "client_credential", "appid": app, "secret": secret, "force_refresh": false,
        });
        let asked = call.clock.mono();
        let reply =
            exchange(call, Ask::post(format!("{base_url}/cgi-bin/stable_token")).json(body).credential()).await?;
        let json = reply.json.as_ref().filter(|_| reply.status.is_success()).ok_or_else(|| reply.unclear(call))?;
        if let Some(code) = code_of(json, "errcode").filter(|code| *code != 0) {
            return Err(match classify(call, &reply, code, false) {
                // Here the code speaks of the secret: no token was sent.
                Failure::NotSent(why) if code == 40001 => Failure::Credential(Scope::Account, why),
                failure => failure,
            });
        }
        let value = text_of(json, "access_token").filter(|t| t.len() <= 2048).ok_or_else(|| reply.unclear(call))?;
        let life = code_of(json, "expires_in").unwrap_or(LIFE_S).clamp(0, LIFE_S);
        let until = Mono(asked.0 + Duration::from_secs(life.unsigned_abs()));
        self.lock().entry(app.to_owned()).or_default().token = Some((value.clone(), until));
        Ok(value)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Held>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// App id and secret: a JSON object, or one line with a colon between.
fn app(call: &Call<'_>) -> Result<(String, String), Failure> {
    let pair = call.token.field("appid").zip(call.token.field("secret"));
    let line = || call.token.expose().split_once(':').map(|(app, secret)| (app.to_owned(), secret.to_owned()));
    pair.or_else(|| line().filter(|(app, _)| !app.contains('{'))).ok_or_else(|| {
        let why = Words::new(
            "公众号的凭据应为 {\"appid\": …, \"secret\": …}",
            "the secret of an official account is {\"appid\": …, \"secret\": …}",
        );
        Failure::Credential(Scope::Account, why)
    })
}
