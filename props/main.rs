//! Laws that hold over generated inputs, one module a subject.

mod device;
mod oracle;
mod support;
