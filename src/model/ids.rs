//! Identities: a uuid each, of a type of its own so that they cannot be mixed up.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A new random (version 4) id.
            #[expect(clippy::new_without_default, reason = "a default id would be a trap")]
            pub fn new() -> Self {
                Self(Uuid::new_v4())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, uuid::Error> {
                Uuid::parse_str(text).map(Self)
            }
        }
    };
}

id!(
    /// An app, kept over renames.
    AppId
);
id!(
    /// One run of one dyno: `web.1` before and after a restart are two ids.
    DynoId
);
id!(
    /// A release (its number within the app is a [`super::ReleaseVersion`]).
    ReleaseId
);
id!(
    /// A slug record (its bytes are named by a [`super::Digest`]).
    SlugId
);
id!(
    /// One build.
    BuildId
);

impl DynoId {
    /// The first eight hex digits, for names with little room (link names, host names).
    pub fn short(&self) -> String {
        let mut text = self.0.simple().to_string();
        text.truncate(8);
        text
    }
}
