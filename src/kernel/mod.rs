//! Kernels: the `kernel/1` manifest, its expressions, the built-in kernels, and from a manifest
//! and a case the source to compile and the launches to make.
//!
//! | subject | file |
//! | --- | --- |
//! | expressions, and text with expressions in it | `expr`, `template` |
//! | the manifest, its arguments, `[supports]`, `[numerics]` | `manifest`, `args`, `supports`, `numerics` |
//! | mistakes with file and line | `read` |
//! | the variables of a case | `env` |
//! | whether a kernel takes a case | `fit` |
//! | which part of its claims is driven, which keys are not | `driven`, `later` |
//! | source, scratch and launches for a case | `plan` |
//! | kernels by name or path | `registry` |

mod args;
mod device;
mod driven;
pub mod env;
pub mod expr;
mod fit;
mod later;
mod manifest;
mod numerics;
mod plan;
mod pointees;
mod read;
mod registry;
mod supports;
mod template;

pub use args::{ArgSpec, ScalarType, Scratch, ScratchType};
pub use device::DeviceNeeds;
pub use driven::{Claim, Driven, NothingDriven};
pub use env::Env;
pub use expr::{Expr, ExprError, ExprProblem, Value};
pub use fit::Unsupported;
pub use manifest::{Code, Define, LaunchSpec, Manifest, Param};
pub use numerics::{Denormals, Numerics, Promise};
pub use plan::{PlanError, ScratchSize};
pub use read::{ManifestError, ManifestProblem, TextError};
pub use registry::{BUILTINS, Builtin, Registry, RegistryError};
pub use supports::{Layouts, Range, Supports};
pub use template::{TYPE_NAMES, Template, TemplateError};
