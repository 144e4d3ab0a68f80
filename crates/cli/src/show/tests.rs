//! What people see, as they see it.
