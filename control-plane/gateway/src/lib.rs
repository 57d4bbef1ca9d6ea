//! The embedded MQTT endpoint for devices.
