//! The socket: who may ask what, how a request may look, and what an answer promises.

#[path = "socket/acknowledged.rs"]
mod acknowledged;
#[path = "socket/checked.rs"]
mod checked;
#[path = "socket/full.rs"]
mod full;
#[path = "socket/indoors.rs"]
mod indoors;
#[path = "socket/inherited.rs"]
mod inherited;
#[path = "socket/outdoors.rs"]
mod outdoors;
#[path = "socket/patience.rs"]
mod patience;
#[path = "socket/requests.rs"]
mod requests;
#[path = "socket/roles.rs"]
mod roles;
mod support;
#[path = "socket/wire.rs"]
mod wire;
