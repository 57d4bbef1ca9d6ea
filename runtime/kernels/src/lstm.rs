//! LSTM over a sequence.
