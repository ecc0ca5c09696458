//! What the compiler's checks of arithmetic say, read from the descriptions that it lays in the
//! module: the layouts are those of libubsan's handlers, the same for g++ and clang.

use std::ffi::{CStr, c_char};

use super::super::super::finding::Kind;

/// `SourceLocation`, with which each description begins.
#[repr(C)]
struct Location {
    file: *const c_char,
    line: u32,
    column: u32,
}

/// `TypeDescriptor`, without the name that follows.
#[repr(C)]
struct Type {
    /// 0 for integers.
    kind: u16,
    /// For integers: whether signed, and 2 times the logarithm of the bits.
    info: u16,
}

/// An undefined operation in words.
pub(super) struct Undefined {
    pub(super) kind: Kind,
    pub(super) line: Option<(String, u32)>,
    pub(super) detail: String,
    /// Whether the kernel cannot go on: what follows would crash it.
    pub(super) ends: bool,
    /// The address that is misaligned, and what it must be a multiple of.
    pub(super) address: Option<(usize, usize)>,
}

/// Reads a description. `number` is the one in `checked.h`; a null description tells nothing.
///
/// # Safety
/// `data` is what the compiler passes to the handler of that number, with operands `a` and `b`.
pub(super) unsafe fn read(number: u32, data: *const u8, a: u64, b: u64) -> Option<Undefined> {
    if data.is_null() {
        return None;
    }
    // SAFETY: every description begins with a location.
    let location = unsafe { &*data.cast::<Location>() };
    // SAFETY: the file's name is a string constant of the module, or null.
    let file = (!location.file.is_null()).then(|| unsafe { text(location.file) });
    let line = file.map(|file| (file, location.line));
    // SAFETY: up to two pointers to types follow the location, as each arm below knows.
    let ty =
        |index: usize| unsafe { *data.add(size_of::<Location>()).cast::<*const Type>().add(index) };
    // SAFETY: types that the compiler named in the description.
    let (number_of, name_of) = (|v, t| unsafe { integer(v, t) }, |t| unsafe { name(t) });
    let (kind, detail, ends) = match number {
        0..=2 => {
            let sign = ["+", "-", "*"][number as usize];
            let (x, y) = (number_of(a, ty(0)), number_of(b, ty(0)));
            (Kind::Overflow, format!("{x} {sign} {y} does not fit in `{}`", name_of(ty(0))), false)
        }
        3 => {
            let x = number_of(a, ty(0));
            (Kind::Overflow, format!("-({x}) does not fit in `{}`", name_of(ty(0))), false)
        }
        4 => {
            let (x, y) = (number_of(a, ty(0)), number_of(b, ty(0)));
            let what = match y.as_str() {
                "0" => format!("{x} is divided by 0"),
                _ => format!("{x} / {y} does not fit in `{}`", name_of(ty(0))),
            };
            (Kind::Division, what, true)
        }
        5 => {
            let (x, by) = (number_of(a, ty(0)), number_of(b, ty(1)));
            (Kind::Shift, format!("{x} of type `{}` is shifted by {by}", name_of(ty(0))), false)
        }
        6 => {
            let index = number_of(a, ty(1));
            (Kind::Index, format!("index {index} of an array `{}`", name_of(ty(0))), true)
        }
        _ => {
            // SAFETY: the logarithm of the alignment follows the pointer to the type.
            let shift = unsafe { *data.add(size_of::<Location>() + size_of::<usize>()) };
            let align = 1usize << shift.min(12);
            let address = a as usize;
            if address.is_multiple_of(align) {
                // A null pointer or too small an object: the access itself tells.
                return None;
            }
            let detail = format!("`{}` must lie at a multiple of {align} bytes", name_of(ty(0)));
            let address = Some((address, align));
            return Some(Undefined { kind: Kind::Misaligned, line, detail, ends: true, address });
        }
    };
    Some(Undefined { kind, line, detail, ends, address: None })
}

/// # Safety
/// A C string.
unsafe fn text(start: *const c_char) -> String {
    // SAFETY: as the caller promises.
    unsafe { CStr::from_ptr(start) }.to_string_lossy().into_owned()
}

/// A type's name without the compiler's quotes.
///
/// # Safety
/// A type of a description.
unsafe fn name(ty: *const Type) -> String {
    // SAFETY: the name follows the two numbers.
    let name = unsafe { text(ty.cast::<u8>().add(size_of::<Type>()).cast()) };
    name.trim_matches('\'').to_owned()
}

/// An operand of at most 64 bits; a wider one is passed by its address.
///
/// # Safety
/// A type of a description.
unsafe fn integer(value: u64, ty: *const Type) -> String {
    // SAFETY: as the caller promises.
    let Type { kind, info } = unsafe { ty.read_unaligned() };
    let bits = 1u32 << (info >> 1).min(8);
    if kind != 0 || bits > 64 {
        return "a wide number".to_owned();
    }
    let unused = 64 - bits.clamp(8, 64);
    if info & 1 == 1 {
        ((value << unused) as i64 >> unused).to_string()
    } else {
        (value << unused >> unused).to_string()
    }
}
