//! The header of a shard: what tensors there are, and where.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use ::safetensors::Dtype;
use serde::de::value::StrDeserializer;
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, de};

use super::shown;

/// Length of the number in front of the header that says how long it is, in bytes.
pub(super) const PREFIX_LEN: u64 = 8;

/// Length of the longest header that is read, in bytes: that of the `safetensors` crate.
pub const MAX_HEADER_LEN: u64 = 100_000_000;

/// Dimensions of a tensor: no framework has more.
const MAX_RANK: usize = 64;

/// Entries of a header's metadata.
const MAX_METADATA: usize = 1 << 16;

/// The name under which a header has metadata in place of a tensor.
const METADATA: &str = "__metadata__";

/// What a shard says that it holds, checked against itself and against the shard's length.
#[derive(Debug)]
pub struct Header {
    tensors: Vec<Tensor>,
    metadata: BTreeMap<String, String>,
}

/// A tensor, as a header has it.
#[derive(Debug)]
#[non_exhaustive]
pub struct Tensor {
    /// Its name.
    pub name: Box<str>,
    /// What its elements are.
    pub dtype: Dtype,
    /// Its dimensions.
    pub shape: Box<[usize]>,
    /// Where its bytes lie in what follows the header.
    pub range: Range<u64>,
}

impl Header {
    /// Reads the JSON of a header that `data_len` bytes of tensors follow.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(json: &[u8], data_len: u64) -> Result<Self, String> {
        if json.len() as u64 > MAX_HEADER_LEN {
            return Err(format!("its header is longer than {MAX_HEADER_LEN} bytes"));
        }
        let text = std::str::from_utf8(json).map_err(|error| format!("its header is not UTF-8: {error}"))?;
        if !text.starts_with('{') {
            return Err("its header does not start with {".to_owned());
        }
        let mut header: Self = serde_json::from_str(text)
            .map_err(|error| format!("its header is not as it must be: {error}"))?;
        header.tensors.shrink_to_fit();
        // Of those at one place, those without bytes come first.
        header
            .tensors
            .sort_by_key(|tensor| (tensor.range.start, tensor.range.end));
        header.check_names()?;
        header.check_ranges(data_len)?;
        Ok(header)
    }

    /// The tensors, in the order of their bytes.
    #[must_use]
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// What else the header says.
    #[must_use]
    pub const fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    pub(super) fn into_parts(self) -> (Vec<Tensor>, BTreeMap<String, String>) {
        (self.tensors, self.metadata)
    }

    fn check_names(&self) -> Result<(), String> {
        let mut names: Vec<_> = self.tensors.iter().map(|tensor| &*tensor.name).collect();
        names.sort_unstable();
        match names.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(format!("tensor {} is in its header twice", shown(pair[0]))),
            None => Ok(()),
        }
    }

    /// Each tensor begins where the one before it ends, and is as long as its shape says.
    fn check_ranges(&self, data_len: u64) -> Result<(), String> {
        let mut end = 0;
        for tensor in &self.tensors {
            let refused = |what: &str| Err(format!("tensor {} {what}", shown(&tensor.name)));
            let range = &tensor.range;
            if range.start > range.end {
                return refused("ends before it begins");
            }
            if range.start < end {
                return refused("overlaps the one before it");
            }
            if range.start > end {
                return refused("has a hole in front of it");
            }
            if range.end > data_len {
                return refused("reaches beyond the end of the file");
            }
            match byte_len(tensor.dtype, &tensor.shape) {
                Err(what) => return refused(what),
                Ok(len) if len != range.end - range.start => {
                    return refused(&format!(
                        "has {} bytes, but its shape and dtype ({}) make {len}",
                        range.end - range.start,
                        tensor.dtype
                    ));
                }
                Ok(_) => end = range.end,
            }
        }
        if end != data_len {
            return Err(format!(
                "{} bytes behind its last tensor belong to none",
                data_len - end
            ));
        }
        Ok(())
    }
}

/// Bytes of so many elements.
pub(super) fn byte_len(dtype: Dtype, shape: &[usize]) -> Result<u64, &'static str> {
    let overflow = "has a shape whose length overflows";
    let bits = shape
        .iter()
        .try_fold(1_usize, |product, dimension| product.checked_mul(*dimension))
        .and_then(|elements| elements.checked_mul(dtype.bitsize()))
        .ok_or(overflow)?;
    if bits % 8 != 0 {
        return Err("does not fill its last byte");
    }
    Ok(bits as u64 / 8)
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(HeaderVisitor)
    }
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = Header;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with a member for each tensor")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
        let mut tensors = Vec::new();
        let mut metadata = None;
        while let Some(name) = map.next_key::<Box<str>>()? {
            if &*name == METADATA {
                if metadata.is_some() {
                    return Err(A::Error::duplicate_field(METADATA));
                }
                let found: Option<Metadata> = map.next_value()?;
                metadata = Some(found.map(|found| found.0).unwrap_or_default());
                continue;
            }
            let entry: TensorEntry = map
                .next_value()
                .map_err(|error| A::Error::custom(format_args!("tensor {}: {error}", shown(&name))))?;
            tensors.push(Tensor {
                name,
                dtype: entry.dtype.0,
                shape: entry.shape.0,
                range: entry.data_offsets.0..entry.data_offsets.1,
            });
        }
        Ok(Header {
            tensors,
            metadata: metadata.unwrap_or_default(),
        })
    }
}

/// A tensor as it is written. What else is there is ignored, as the `safetensors` crate does.
#[derive(Deserialize)]
struct TensorEntry {
    dtype: DtypeName,
    shape: Shape,
    data_offsets: (u64, u64),
}

struct DtypeName(Dtype);

impl<'de> Deserialize<'de> for DtypeName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = Box::<str>::deserialize(deserializer)?;
        Dtype::deserialize(StrDeserializer::<de::value::Error>::new(&name))
            .map(Self)
            .map_err(|_| D::Error::custom(format_args!("the dtype {} is not known", shown(&name))))
    }
}

struct Shape(Box<[usize]>);

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(ShapeVisitor)
    }
}

struct ShapeVisitor;

impl<'de> Visitor<'de> for ShapeVisitor {
    type Value = Shape;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of dimensions")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Shape, A::Error> {
        let mut shape = Vec::new();
        while let Some(dimension) = seq.next_element()? {
            if shape.len() == MAX_RANK {
                return Err(A::Error::custom(format_args!(
                    "it has more than {MAX_RANK} dimensions"
                )));
            }
            shape.push(dimension);
        }
        Ok(Shape(shape.into()))
    }
}

struct Metadata(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Metadata {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MetadataVisitor)
    }
}

struct MetadataVisitor;

impl<'de> Visitor<'de> for MetadataVisitor {
    type Value = Metadata;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of strings")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Metadata, A::Error> {
        let mut metadata = BTreeMap::new();
        while let Some((name, value)) = map.next_entry::<String, String>()? {
            if metadata.len() == MAX_METADATA {
                return Err(A::Error::custom(format_args!(
                    "the metadata has more than {MAX_METADATA} entries"
                )));
            }
            if metadata.contains_key(&name) {
                return Err(A::Error::custom(format_args!(
                    "the metadata has {} twice",
                    shown(&name)
                )));
            }
            metadata.insert(name, value);
        }
        Ok(Metadata(metadata))
    }
}
