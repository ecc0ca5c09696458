//! Results for people (tables) and for programs (JSON). Nothing here judges.

pub mod bench;
pub mod diagnose;
pub mod figures;
pub mod html;
pub mod inspect;
pub mod json;
pub mod junit;
pub mod table;
pub mod trace;
