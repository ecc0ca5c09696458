//! The verdicts on the golden traces, and on traces with planted faults.
