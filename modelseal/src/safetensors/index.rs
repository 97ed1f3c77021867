//! The index of a model in several shards: which tensor is in which.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};

use super::{MAX_SHARDS, shown};

/// Length of the longest index that is read, in bytes.
pub(super) const MAX_INDEX_LEN: u64 = super::MAX_HEADER_LEN;

/// Which tensor is in which shard. What else an index says is ignored.
#[derive(Deserialize)]
pub(super) struct Index {
    weight_map: WeightMap,
}

struct WeightMap {
    /// Sorted, from the directory of the index.
    shards: Vec<Box<str>>,
    /// Sorted by name, each with the number of its shard.
    tensors: Vec<(Box<str>, u32)>,
}

impl Index {
    pub(super) fn parse(json: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(json).map_err(|error| format!("the index is not UTF-8: {error}"))?;
        let index: Self =
            serde_json::from_str(text).map_err(|error| format!("the index is not as it must be: {error}"))?;
        let tensors = &index.weight_map.tensors;
        if let Some(pair) = tensors.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(format!("tensor {} is in the index twice", shown(&pair[0].0)));
        }
        for shard in &index.weight_map.shards {
            let stays = Path::new(&**shard)
                .components()
                .all(|part| matches!(part, Component::Normal(_)));
            if shard.is_empty() || !stays {
                return Err(format!(
                    "the index names the shard {}, which is none below its directory",
                    shown(shard)
                ));
            }
        }
        Ok(index)
    }

    /// The shards, sorted, as paths from the directory of the index.
    pub(super) fn shards(&self) -> impl Iterator<Item = PathBuf> {
        self.weight_map.shards.iter().map(|shard| PathBuf::from(&**shard))
    }

    /// The tensors, sorted, each with the number of its shard.
    pub(super) fn tensors(&self) -> impl Iterator<Item = (&str, u32)> {
        self.weight_map
            .tensors
            .iter()
            .map(|(name, shard)| (&**name, *shard))
    }
}

impl<'de> Deserialize<'de> for WeightMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(WeightMapVisitor)
    }
}

struct WeightMapVisitor;

impl<'de> Visitor<'de> for WeightMapVisitor {
    type Value = WeightMap;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with the shard of each tensor")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<WeightMap, A::Error> {
        let mut numbers = BTreeMap::<Box<str>, u32>::new();
        let mut tensors = Vec::new();
        while let Some((name, shard)) = map.next_entry::<Box<str>, Box<str>>()? {
            let next = u32::try_from(numbers.len()).unwrap_or(u32::MAX);
            let number = match numbers.get(&shard) {
                Some(number) => *number,
                None if numbers.len() == MAX_SHARDS => {
                    return Err(A::Error::custom(format_args!(
                        "it names more than {MAX_SHARDS} shards"
                    )));
                }
                None => *numbers.entry(shard).or_insert(next),
            };
            tensors.push((name, number));
        }
        // From the order in which they were come upon to that of their names.
        let mut sorted = vec![0; numbers.len()];
        for (place, number) in (0..).zip(numbers.values()) {
            sorted[*number as usize] = place;
        }
        for (_, number) in &mut tensors {
            *number = sorted[*number as usize];
        }
        tensors.sort_unstable();
        Ok(WeightMap {
            shards: numbers.into_keys().collect(),
            tensors,
        })
    }
}
