//! Laws that hold over generated inputs, and the program as a whole; one module a subject.

mod bad_input;
mod bench;
mod corpus;
mod decode;
mod device;
mod faults;
mod oracle;
mod program;
mod support;
