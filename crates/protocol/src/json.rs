//! Lenient decoding of message bodies, as the original's two sides decode them (GCS bridge protocol §2, §13).
//!
//! * Member names of messages match in any letter case; where one appears twice, the last wins.
//! * `null` counts as absent, and every absent member has its zero value.
//! * Unknown members are ignored.
//!
//! The keys of maps (environment variables) and of documents that only pass through (an OCI spec) stay as they are:
//! names are matched only against the members of a message's own types. That needs those types to be plain structs;
//! `#[serde(flatten)]` hides the member names, so no decoded type uses it.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, DeserializeOwned, IntoDeserializer, Visitor, value::MapDeserializer, value::SeqDeserializer},
    forward_to_deserialize_any, ser,
};
use serde_json::{Map, Value};

/// Decodes a body.
pub fn from_slice<T: DeserializeOwned>(body: &[u8]) -> Result<T, serde_json::Error> {
    from_value(serde_json::from_slice(body)?)
}

/// Decodes a parsed body.
pub fn from_value<T: DeserializeOwned>(value: Value) -> Result<T, serde_json::Error> {
    T::deserialize(Lenient(value))
}

/// A JSON text stored as the value of a JSON string ("JSON-in-string"). An empty string is `T`'s default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InString<T>(pub T);

impl<T: Serialize> Serialize for InString<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = serde_json::to_string(&self.0).map_err(ser::Error::custom)?;
        serializer.serialize_str(&text)
    }
}

impl<'de, T: DeserializeOwned + Default> Deserialize<'de> for InString<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        from_slice(text.as_bytes()).map(Self).map_err(|error| {
            de::Error::custom(format!("in the JSON text of {}: {error}", short_type_name::<T>()))
        })
    }
}

fn short_type_name<T>() -> &'static str {
    let name = std::any::type_name::<T>();
    name.rsplit("::").next().unwrap_or(name)
}

/// Whether a member has its zero value, so that writing it can be left out.
pub(crate) fn is_zero<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Deserialises a JSON value, matching struct members in any letter case.
struct Lenient(Value);

impl Lenient {
    /// Gives each member the name under which the struct knows it, and drops `null`s.
    fn rename(members: Map<String, Value>, fields: &'static [&'static str]) -> Map<String, Value> {
        let mut renamed = Map::new();
        for (name, value) in members {
            if value.is_null() {
                continue;
            }
            match fields.iter().find(|field| field.eq_ignore_ascii_case(&name)) {
                Some(field) => renamed.insert((*field).to_owned(), value),
                None => renamed.insert(name, value),
            };
        }
        renamed
    }

    fn map_access(members: Map<String, Value>) -> MapDeserializer<'static, Members, serde_json::Error> {
        MapDeserializer::new(Members(members.into_iter()))
    }
}

struct Members(serde_json::map::IntoIter);

impl Iterator for Members {
    type Item = (String, Lenient);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|(name, value)| (name, Lenient(value)))
    }
}

impl IntoDeserializer<'_, serde_json::Error> for Lenient {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl fmt::Debug for Lenient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'de> Deserializer<'de> for Lenient {
    type Error = serde_json::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        match self.0 {
            Value::Array(items) => {
                let mut sequence = SeqDeserializer::new(items.into_iter().map(Lenient));
                let value = visitor.visit_seq(&mut sequence)?;
                sequence.end()?;
                Ok(value)
            }
            Value::Object(members) => visitor.visit_map(Self::map_access(members)),
            scalar => scalar.deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        match self.0 {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        match self.0 {
            Value::Object(members) => visitor.visit_map(Self::map_access(Self::rename(members, fields))),
            // A struct is never read from an array: positions mean nothing in this protocol.
            other => Err(de::Error::invalid_type(unexpected(&other), &visitor)),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        self.0.deserialize_enum(name, variants, visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq
        tuple tuple_struct map identifier ignored_any
    }
}

fn unexpected(value: &Value) -> de::Unexpected<'_> {
    match value {
        Value::Null => de::Unexpected::Unit,
        Value::Bool(b) => de::Unexpected::Bool(*b),
        Value::Number(_) => de::Unexpected::Other("a number"),
        Value::String(s) => de::Unexpected::Str(s),
        Value::Array(_) => de::Unexpected::Seq,
        Value::Object(_) => de::Unexpected::Map,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;

    #[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
    #[serde(default, rename_all = "PascalCase")]
    struct Inner {
        lun: u8,
        environment: BTreeMap<String, String>,
    }

    #[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
    #[serde(default, rename_all = "PascalCase")]
    struct Outer {
        items: Vec<Inner>,
        one: Option<Inner>,
        text: InString<Inner>,
        free: Value,
    }

    #[test]
    fn member_names_match_in_any_case_at_every_depth_but_map_keys_stay() {
        let outer: Outer = from_value(json!({
            "ITEMS": [{"lUn": 3, "environment": {"lun": "x", "LUN": "y"}}],
            "one": {"LUN": 4},
            "tExt": "{\"lun\":5}",
            "free": {"lun": 1, "Lun": 2},
            "unknown": [1, {"a": null}],
        }))
        .unwrap();
        let environment = BTreeMap::from([("lun".into(), "x".into()), ("LUN".into(), "y".into())]);
        assert_eq!(outer.items, [Inner { lun: 3, environment }]);
        assert_eq!(outer.one.unwrap().lun, 4);
        assert_eq!(outer.text.0.lun, 5);
        assert_eq!(outer.free, json!({"lun": 1, "Lun": 2}));
    }

    #[test]
    fn null_is_absent_and_the_last_of_two_spellings_wins() {
        let inner: Inner = from_slice(br#"{"Lun":null,"environment":null}"#).unwrap();
        assert_eq!(inner, Inner::default());
        let inner: Inner = from_slice(br#"{"Lun":1,"lun":2}"#).unwrap();
        assert_eq!(inner.lun, 2);
    }

    #[test]
    fn an_empty_text_is_the_default_and_a_broken_one_names_its_type() {
        let text: InString<Inner> = from_slice(b"\"\"").unwrap();
        assert_eq!(text.0, Inner::default());
        let error = from_slice::<InString<Inner>>(br#""{\"Lun\":300}""#)
            .unwrap_err()
            .to_string();
        assert!(error.contains("Inner") && error.contains("300"), "{error}");
    }

    #[test]
    fn a_struct_is_not_read_from_an_array_or_a_number() {
        assert!(from_slice::<Inner>(b"[1]").is_err());
        assert!(from_slice::<Inner>(b"1").is_err());
        assert!(from_slice::<Inner>(b"").is_err());
    }
}
