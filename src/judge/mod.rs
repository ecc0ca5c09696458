//! Judgement: compare with the oracle, draw cases, sweep, shrink, replay; traces.

pub mod checked;
pub mod compare;
pub mod coverage;
pub mod covered;
pub mod curves;
pub mod diagnose;
pub mod draw;
pub mod explain;
pub mod law;
pub mod lds;
mod refuse;
pub mod replay;
pub mod sanitize;
pub mod shrink;
pub mod space;
pub mod sweep;
pub mod trace;
pub mod trial;
pub mod verdict;
pub mod wide;
