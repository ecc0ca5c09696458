//! What a launch passes, and the scratch buffers that a kernel asks for.

use super::expr::Expr;
use super::read::{Item, ManifestError};
use crate::problem::{Pointer, Stage, did_you_mean, named, nearest};
use std::str::FromStr;

named! {
    /// Type of a scalar argument.
    ScalarType, "type of a scalar", {
        /// 32-bit signed integer.
        I32 = "i32",
        /// 32-bit unsigned integer.
        U32 = "u32",
        /// 64-bit signed integer.
        I64 = "i64",
        /// 64-bit unsigned integer.
        U64 = "u64",
        /// Single precision.
        F32 = "f32",
        /// Double precision.
        F64 = "f64",
    }
}

named! {
    /// Element type of a scratch buffer.
    ScratchType, "type of a scratch buffer", {
        /// Double precision.
        F64 = "f64",
        /// Single precision.
        F32 = "f32",
        /// Half precision.
        F16 = "f16",
        /// bfloat16.
        BF16 = "bf16",
        /// 64-bit signed integer.
        I64 = "i64",
        /// 64-bit unsigned integer.
        U64 = "u64",
        /// 32-bit signed integer.
        I32 = "i32",
        /// 32-bit unsigned integer.
        U32 = "u32",
        /// 16-bit signed integer.
        I16 = "i16",
        /// 16-bit unsigned integer.
        U16 = "u16",
        /// 8-bit signed integer.
        I8 = "i8",
        /// 8-bit unsigned integer.
        U8 = "u8",
    }
}

impl ScratchType {
    /// Bytes of an element.
    pub fn size(self) -> usize {
        match self {
            ScratchType::F64 | ScratchType::I64 | ScratchType::U64 => 8,
            ScratchType::F32 | ScratchType::I32 | ScratchType::U32 => 4,
            ScratchType::F16 | ScratchType::BF16 | ScratchType::I16 | ScratchType::U16 => 2,
            ScratchType::I8 | ScratchType::U8 => 1,
        }
    }
}

/// A device buffer that a kernel needs besides its tensors.
#[derive(Debug, Clone, PartialEq)]
pub struct Scratch {
    /// Its name among the arguments.
    pub name: String,
    /// Element type.
    pub dtype: ScratchType,
    /// How many elements.
    pub elements: Expr,
    /// Whether the kernel finds zeros there, and leaves zeros.
    pub zeroed: bool,
}

impl Scratch {
    /// Reads `"dtype: element count"`, or `"zeroed dtype: element count"`.
    pub(super) fn read(name: &str, item: &Item) -> Result<Scratch, ManifestError> {
        let want = "\"dtype: element count\", such as \"f32: batch * num_heads\"";
        let text = item.string(want)?;
        let (dtype, elements) = text.split_once(':').ok_or_else(|| {
            item.bad(format_args!("\"{text}\""), format_args!("there is no `:`; write {want}"))
        })?;
        let dtype = dtype.trim();
        let (zeroed, dtype) = match dtype.strip_prefix("zeroed ") {
            Some(dtype) => (true, dtype.trim()),
            None => (false, dtype),
        };
        let dtype = dtype.parse().map_err(|e| item.bad(format_args!("\"{text}\""), e))?;
        let elements = Expr::parse(elements.trim()).map_err(|e| item.bad_text(e))?;
        Ok(Scratch { name: name.to_owned(), dtype, elements, zeroed })
    }
}

/// An argument of a launch.
#[derive(Debug, Clone, PartialEq)]
pub enum ArgSpec {
    /// A tensor of the stage.
    Pointer(Pointer),
    /// A scratch buffer, by its index in [`super::Manifest::scratch`].
    Scratch(usize),
    /// A null pointer.
    Null,
    /// A number.
    Scalar {
        /// The type that the kernel takes.
        ty: ScalarType,
        /// Its value.
        expr: Expr,
    },
}

impl ArgSpec {
    /// Reads a pointer's name or `TYPE:EXPR`.
    pub(super) fn read(
        item: &Item,
        stage: Stage,
        scratch: &[Scratch],
    ) -> Result<ArgSpec, ManifestError> {
        let text = item.string("a pointer such as \"q\", or a scalar such as \"u32:num_heads\"")?;
        let quoted = format!("\"{text}\"");
        if let Some((ty, expr)) = text.split_once(':') {
            let ty = ty.trim().parse::<ScalarType>().map_err(|e| item.bad(&quoted, e))?;
            let expr = Expr::parse(expr.trim()).map_err(|e| item.bad_text(e))?;
            return Ok(ArgSpec::Scalar { ty, expr });
        }
        if text == NULL {
            return Ok(ArgSpec::Null);
        }
        if let Some(index) = scratch.iter().position(|s| s.name == text) {
            return Ok(ArgSpec::Scratch(index));
        }
        let known: Vec<&str> = stage
            .ports()
            .iter()
            .map(|p| p.pointer.name())
            .chain(scratch.iter().map(|s| s.name.as_str()))
            .chain([NULL])
            .collect();
        let list = known.join(", ");
        match Pointer::from_str(text) {
            Ok(pointer) if stage.port(pointer).is_some() => Ok(ArgSpec::Pointer(pointer)),
            Ok(_) => Err(item
                .bad(&quoted, format_args!("stage `{stage}` has no such pointer; it has {list}"))),
            Err(_) => {
                let meant = did_you_mean(&nearest(text, known));
                Err(item.bad(
                    &quoted,
                    format_args!(
                        "unknown argument{meant} (pointers here: {list}; \
                         scalars are TYPE:EXPR, such as u32:num_heads)"
                    ),
                ))
            }
        }
    }
}

/// The name of the null pointer among the arguments.
pub(super) const NULL: &str = "null";
