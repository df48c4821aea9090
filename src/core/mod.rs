//! Decisions, pure: values in, values out.
//!
//! Nothing here is `async`, opens a file or a socket, reads a clock or draws a number, and every
//! collection has an order of its own. So each rule can be read alone, tested in a table, and
//! repeated from a seed.

pub mod accounts;
pub mod alert;
pub mod announcement;
pub mod change;
pub mod delivery;
pub mod fit;
pub mod gate;
pub mod likeness;
pub mod pacing;
pub mod plan;
pub mod policy;
pub mod repeat;
pub mod template;
pub mod timeline;
pub mod words;

/// An instant in UTC, to the microsecond.
pub type Time = chrono::DateTime<chrono::Utc>;

/// Declares a newtype over text, cheap to clone, that displays and serialises as its text.
macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize, utoipa::ToSchema,
        )]
        #[serde(transparent)]
        #[schema(value_type = String)]
        pub struct $name(pub std::sync::Arc<str>);

        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                $name(text.into())
            }
        }
        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}
pub(crate) use text_id;
