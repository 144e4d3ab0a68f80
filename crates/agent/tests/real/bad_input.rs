//! Bad input: each gets a message that names the file, the key or the VM, the agent lives on, and no VM is lost.
