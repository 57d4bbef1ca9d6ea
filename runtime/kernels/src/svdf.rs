//! SVDF.
