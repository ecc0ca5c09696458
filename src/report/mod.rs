//! Results for people (tables) and for programs (JSON). Nothing here judges.

pub mod bench;
pub mod diagnose;
pub mod inspect;
pub mod json;
pub mod table;
pub mod trace;
