//! Which keys a deserializable type has, and of which types, found out by deserializing it from nothing. So the list of
//! known keys cannot drift from the structs in `file.rs`. It knows no TOML and nothing of what the keys mean.

use serde::de::value::{Error, StrDeserializer};
use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error as _, IntoDeserializer};
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;
use serde_spanned::de::{SpannedDeserializer, is_spanned};

/// What stands at a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    Text,
    Whole,
    Switch,
    List(Box<Shape>),
    /// Keys in the order of the struct.
    Table(Vec<(&'static str, Shape)>),
}

impl Shape {
    /// The shape of `T`. Fails on a type that is made of more than text, `i64`, `bool`, lists, structs, options and
    /// `Spanned`.
    pub fn of<T: Deserialize<'static>>() -> Result<Shape, Error> {
        let mut found = None;
        T::deserialize(Tracer { found: &mut found })?;
        found.ok_or_else(|| Error::custom("a type that asked for nothing"))
    }

    /// Every key below this shape with its path: `listener.name`, `gateway.drain.delay`.
    pub fn key_paths(&self) -> Vec<String> {
        match self {
            Shape::Text | Shape::Whole | Shape::Switch => Vec::new(),
            Shape::List(element) => element.key_paths(),
            Shape::Table(keys) => keys
                .iter()
                .flat_map(|(key, shape)| {
                    let below = shape.key_paths();
                    if below.is_empty() {
                        return vec![(*key).to_owned()];
                    }
                    let prefixed = below.iter().map(|path| format!("{key}.{path}"));
                    prefixed.collect()
                })
                .collect(),
        }
    }
}

/// Answers every request of a `Deserialize` implementation with an empty value, and writes down what was asked for.
struct Tracer<'a> {
    found: &'a mut Option<Shape>,
}

impl<'de> Deserializer<'de> for Tracer<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Error> {
        Err(Error::custom("a type that has no shape"))
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        *self.found = Some(Shape::Text);
        visitor.visit_str("")
    }

    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        *self.found = Some(Shape::Whole);
        visitor.visit_i64(0)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        *self.found = Some(Shape::Switch);
        visitor.visit_bool(false)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let mut element = None;
        let value = visitor.visit_seq(OneElement { found: Some(&mut element) })?;
        let element = element.ok_or_else(|| Error::custom("a list that asked for no element"))?;
        *self.found = Some(Shape::List(Box::new(element)));
        Ok(value)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        if is_spanned(name) {
            return visitor.visit_map(SpannedDeserializer::new(self, 0..0));
        }
        let mut keys = Vec::new();
        let value = visitor.visit_map(StructFields { fields: fields.iter(), current: "", keys: &mut keys })?;
        *self.found = Some(Shape::Table(keys));
        Ok(value)
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i128 u8 u16 u32 u64 u128 f32 f64 char str bytes byte_buf unit unit_struct newtype_struct tuple
        tuple_struct map enum identifier ignored_any
    }
}

impl<'de> IntoDeserializer<'de, Error> for Tracer<'_> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

struct OneElement<'a> {
    /// `None` once the element has been asked for.
    found: Option<&'a mut Option<Shape>>,
}

impl<'de> SeqAccess<'de> for OneElement<'_> {
    type Error = Error;

    fn next_element_seed<T>(&mut self, seed: T) -> Result<Option<T::Value>, Error>
    where
        T: DeserializeSeed<'de>,
    {
        let found = self.found.take();
        found.map(|found| seed.deserialize(Tracer { found })).transpose()
    }
}

struct StructFields<'a> {
    fields: std::slice::Iter<'static, &'static str>,
    /// The key whose value is asked for next.
    current: &'static str,
    keys: &'a mut Vec<(&'static str, Shape)>,
}

impl<'de> MapAccess<'de> for StructFields<'_> {
    type Error = Error;

    fn next_key_seed<K>(&mut self, seed: K) -> Result<Option<K::Value>, Error>
    where
        K: DeserializeSeed<'de>,
    {
        let Some(field) = self.fields.next() else {
            return Ok(None);
        };
        self.current = field;
        let key: StrDeserializer<'_, Error> = field.into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<V>(&mut self, seed: V) -> Result<V::Value, Error>
    where
        V: DeserializeSeed<'de>,
    {
        let mut found = None;
        let value = seed.deserialize(Tracer { found: &mut found })?;
        let shape = found.ok_or_else(|| Error::custom("a field that asked for nothing"))?;
        self.keys.push((self.current, shape));
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use toml::Spanned;

    use super::*;
    use crate::config::file::File;

    #[derive(Default, serde::Deserialize)]
    #[serde(default)]
    struct Small {
        text: Option<Spanned<String>>,
        wholes: Vec<Spanned<i64>>,
        below: Option<Below>,
    }

    #[derive(Default, serde::Deserialize)]
    #[expect(dead_code, reason = "only the field's name and type are of interest")]
    struct Below {
        switch: bool,
    }

    #[test]
    fn finds_keys_and_types_in_the_order_of_the_struct() {
        let expected = Shape::Table(vec![
            ("text", Shape::Text),
            ("wholes", Shape::List(Box::new(Shape::Whole))),
            ("below", Shape::Table(vec![("switch", Shape::Switch)])),
        ]);
        assert_eq!(Shape::of::<Small>().unwrap(), expected);
        assert_eq!(expected.key_paths(), ["text", "wholes", "below.switch"]);
    }

    #[test]
    fn the_file_has_a_shape() {
        let paths = Shape::of::<File>().unwrap().key_paths();
        for path in ["gateway.drain.spread", "listener.trusted_proxies", "upstream.servers.weight"] {
            assert!(paths.iter().any(|known| known == path), "{path}");
        }
    }

    #[test]
    fn a_type_of_other_things_has_none() {
        assert!(Shape::of::<Option<f64>>().is_err());
        assert!(Shape::of::<char>().is_err());
    }
}
