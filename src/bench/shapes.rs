//! The shapes that can be timed: named ones, models at a batch and a length, and ids.

use crate::problem::{Case, CaseError, DType, DTypes, did_you_mean, nearest};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// The named shapes and models, as the scripts of the peers read them, too.
const FILE: &str = include_str!("../../benches/shapes.json");

/// A shape to be timed.
#[derive(Debug, Clone, PartialEq)]
pub struct Shape {
    /// What it is called: a name of the file, `MODEL@BATCHxKEYS`, or its id.
    pub name: String,
    /// The problem. Layouts and tunables of a name are the kernel's to choose.
    pub case: Case,
    /// Whether an id says how K and V lie.
    pub has_layout: bool,
}

/// Why a shape is not one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShapeError {
    /// No such name.
    #[error(
        "--shapes {name}: there is no such shape, set or model{} (sets: {sets}; models, as \
         MODEL@BATCHxKEYS: {models}; or an id such as b=8,hq=32,hkv=8,d=128,n=4096,dt=f16)",
        did_you_mean(nearest)
    )]
    Unknown {
        /// What was written.
        name: String,
        /// A known name that is close to it.
        nearest: Option<String>,
        /// The sets.
        sets: String,
        /// The models.
        models: String,
    },
    /// A model's batch and length that cannot be read.
    #[error("--shapes {0}: write MODEL@BATCHxKEYS with both at least 1, such as llama3-8b@8x4096")]
    Model(String),
    /// An id that is none.
    #[error("--shapes {id}: {source}")]
    Id {
        /// The id.
        id: String,
        /// What is wrong.
        source: CaseError,
    },
}

#[derive(Deserialize)]
struct File {
    sets: BTreeMap<String, Vec<String>>,
    shapes: Vec<Named>,
    models: Vec<Model>,
}

#[derive(Deserialize)]
struct Named {
    name: String,
    batch: usize,
    seq_len: usize,
    #[serde(flatten)]
    heads: Heads,
}

#[derive(Deserialize)]
struct Model {
    name: String,
    #[serde(flatten)]
    heads: Heads,
}

#[derive(Deserialize)]
struct Heads {
    num_heads: usize,
    num_kv_heads: usize,
    head_dim: usize,
    window_len: usize,
    dtype: String,
}

static KNOWN: LazyLock<File> =
    LazyLock::new(|| serde_json::from_str(FILE).expect("benches/shapes.json is embedded"));

/// Batches and lengths of a model whose name stands alone: one long conversation, and a batch of them.
const OF_MODEL: [(usize, usize); 2] = [(1, 8192), (32, 4096)];

fn shape(name: String, heads: &Heads, batch: usize, seq_len: usize) -> Shape {
    let plain =
        Case::plain(heads.num_heads, heads.num_kv_heads, heads.head_dim, vec![seq_len; batch]);
    let dtype: DType = heads.dtype.parse().expect("a dtype in benches/shapes.json");
    let dtypes = DTypes::uniform(dtype);
    // A window as long as the sequence leaves nothing out.
    let window_len = if heads.window_len < seq_len { heads.window_len } else { 0 };
    Shape { name, case: Case { dtypes, window_len, ..plain }, has_layout: false }
}

fn named(name: &str) -> Option<Shape> {
    let found = KNOWN.shapes.iter().find(|shape| shape.name == name)?;
    Some(shape(found.name.clone(), &found.heads, found.batch, found.seq_len))
}

/// The shapes of a list of names, or of one id (which has a `=`).
///
/// # Errors
/// [`ShapeError`].
pub fn parse(text: &str) -> Result<Vec<Shape>, ShapeError> {
    if text.contains('=') {
        let case: Case =
            text.parse().map_err(|source| ShapeError::Id { id: text.to_owned(), source })?;
        let has_layout =
            text.split(',').any(|field| field.starts_with("k=") || field.starts_with("v="));
        return Ok(vec![Shape { name: text.to_owned(), case, has_layout }]);
    }
    let mut shapes = Vec::new();
    for name in text.split(',') {
        if let Some(set) = KNOWN.sets.get(name) {
            shapes.extend(set.iter().filter_map(|name| named(name)));
        } else if let Some(shape) = named(name) {
            shapes.push(shape);
        } else {
            shapes.extend(of_model(name)?);
        }
    }
    Ok(shapes)
}

fn of_model(text: &str) -> Result<Vec<Shape>, ShapeError> {
    let (name, size) = text.split_once('@').map_or((text, None), |(name, size)| (name, Some(size)));
    let Some(model) = KNOWN.models.iter().find(|model| model.name == name) else {
        let sets = || KNOWN.sets.keys().map(String::as_str);
        let models = || KNOWN.models.iter().map(|model| model.name.as_str());
        let shapes = KNOWN.shapes.iter().map(|shape| shape.name.as_str());
        return Err(ShapeError::Unknown {
            name: text.to_owned(),
            nearest: nearest(name, sets().chain(models()).chain(shapes)),
            sets: sets().collect::<Vec<_>>().join(", "),
            models: models().collect::<Vec<_>>().join(", "),
        });
    };
    let sizes = match size {
        None => OF_MODEL.to_vec(),
        Some(size) => {
            let parts = size.split_once('x');
            let parts = parts.and_then(|(b, n)| Some((b.parse().ok()?, n.parse().ok()?)));
            let parts = parts.filter(|(b, n)| *b >= 1 && *n >= 1);
            vec![parts.ok_or_else(|| ShapeError::Model(text.to_owned()))?]
        }
    };
    let of =
        |(batch, n): (usize, usize)| shape(format!("{name}@{batch}x{n}"), &model.heads, batch, n);
    Ok(sizes.into_iter().map(of).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_a_shape() {
        let peers = parse("peers").unwrap();
        assert_eq!(peers.len(), 11);
        assert_eq!(peers[0].name, "llama8b_b1_8k");
        assert_eq!(parse("own").unwrap().len(), 4);
        for shape in peers.iter().chain(&parse("own").unwrap()) {
            shape.case.validate().unwrap();
        }
        for model in &KNOWN.models {
            for shape in parse(&model.name).unwrap() {
                shape.case.validate().unwrap();
            }
        }
        let names: Vec<&String> = KNOWN.sets.values().flatten().collect();
        assert!(names.iter().all(|name| named(name).is_some()), "{names:?}");
    }

    #[test]
    fn models_have_sizes_and_windows() {
        let mistral = &parse("mistral-7b@2x8192").unwrap()[0];
        assert_eq!(mistral.name, "mistral-7b@2x8192");
        assert_eq!((mistral.case.batch(), mistral.case.window_len), (2, 4096));
        assert_eq!(parse("mistral-7b@2x4096").unwrap()[0].case.window_len, 0);
        for wrong in ["llama3-8b@8", "llama3-8b@0x4", "llama3-8b@8x"] {
            let message = parse(wrong).unwrap_err().to_string();
            assert!(message.contains("MODEL@BATCHxKEYS"), "{message}");
        }
    }

    #[test]
    fn ids_and_mistakes() {
        let shape = &parse("b=2,hq=4,hkv=2,d=64,n=100,dt=f16,k=NHD,v=NHD").unwrap()[0];
        assert!(shape.has_layout);
        assert!(!parse("hq=4,hkv=2,d=64,n=100").unwrap()[0].has_layout);
        let message = parse("llama3-9b").unwrap_err().to_string();
        assert!(message.contains("did you mean `llama3-8b`?"), "{message}");
        let message = parse("hq=4,hkv=3,d=64,n=1").unwrap_err().to_string();
        assert!(message.starts_with("--shapes hq=4,hkv=3"), "{message}");
    }
}
