//! Models, through HTTP.
