//! Who is alive, and what each host last said.
