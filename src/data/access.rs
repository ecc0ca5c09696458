//! What a byte of an image may be used for, in a run that is checked: a byte of the access map for
//! each byte of the image. 0 forbids everything.

/// It may be read, once it holds a value.
pub const READ: u8 = 1;
/// It may be written.
pub const WRITE: u8 = 2;
/// It holds a value; the device sets this where a kernel writes.
pub const INIT: u8 = 4;

/// Owners that can be told apart: 1 to 15.
pub const OWNERS: usize = 15;

/// Marks a byte as belonging to sequence `sequence`, modulo [`OWNERS`]. Without it a byte
/// belongs to all of them.
pub fn owner(sequence: usize) -> u8 {
    ((sequence % OWNERS + 1) as u8) << 4
}

/// The number of the owner, or 0.
pub fn owner_of(byte: u8) -> u8 {
    byte >> 4
}
