"""What every actor's process needs and no actor owns: configuration, TLS, HTTP habits, store, audit trail, logs."""
