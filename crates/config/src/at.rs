//! A value with its place in the file.

use std::borrow::Cow;
use std::ops::{Deref, Range};

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

/// A value of a raw shape that knows where it was written, if it was.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(
    transparent,
    bound(deserialize = "T: Deserialize<'de>", serialize = "T: Serialize")
)]
pub(crate) struct At<T>(toml::Spanned<T>);

impl<T> At<T> {
    /// A default: a value that stands nowhere.
    pub fn nowhere(value: T) -> Self {
        Self(toml::Spanned::new(0..0, value))
    }

    /// The bytes of the file; none for a default.
    pub fn span(&self) -> Option<Range<usize>> {
        let span = self.0.span();
        (!span.is_empty()).then_some(span)
    }
}

impl<T> Deref for At<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.get_ref()
    }
}

/// In a JSON schema the place does not show.
impl<T: JsonSchema> JsonSchema for At<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}
