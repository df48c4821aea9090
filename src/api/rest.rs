//! The rest of a request that was refused before it was read.
//!
//! A client that writes a body nobody reads gets an error of its own writing in place of the answer: so the rest is read
//! and thrown away, up to a bound.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::http::{Request, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::{Bytes, Incoming};

use crate::clock::Clock;
use crate::daemon::lock;

const MOST_BYTES: usize = 16 << 20;
const WITHIN: Duration = Duration::from_secs(5);

/// A body, of which what nobody has read can be read afterwards.
#[derive(Clone)]
pub struct Rest {
    body: Arc<Mutex<Incoming>>,
    /// It has not begun to come, and will not unless it is read.
    is_awaited: bool,
}

impl Rest {
    pub fn of(request: Request<Incoming>) -> (Request<axum::body::Body>, Rest) {
        let is_awaited = request.headers().contains_key(header::EXPECT);
        let (parts, body) = request.into_parts();
        let rest = Rest { body: Arc::new(Mutex::new(body)), is_awaited };
        (Request::from_parts(parts, axum::body::Body::new(rest.clone())), rest)
    }

    pub async fn read(mut self, clock: &Clock) {
        if self.is_awaited {
            return;
        }
        let reading = async {
            let mut bytes = 0;
            while let Some(Ok(frame)) = self.frame().await {
                bytes += frame.data_ref().map_or(0, Bytes::len);
                if bytes > MOST_BYTES {
                    break;
                }
            }
        };
        clock.timeout(WITHIN, reading).await;
    }
}

impl Body for Rest {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut *lock(&self.body)).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        lock(&self.body).is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        lock(&self.body).size_hint()
    }
}
