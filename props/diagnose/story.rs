//! The seed's story.
