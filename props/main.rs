//! Laws that hold over generated inputs, and the program as a whole; one module a subject.

mod bad_input;
mod bench;
mod corpus;
mod decode;
mod decode_fast;
mod decode_vector;
mod device;
mod diagnose;
mod faults;
mod gpu;
mod inspect;
mod laws;
mod lockstep;
mod oracle;
mod own_kernel;
mod plot;
mod program;
mod report;
mod sanitize;
mod sensitivity;
mod stage_bounds;
mod support;
mod times;
mod trace;
