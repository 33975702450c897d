"""The selected home operator (SHO): owns subscriptions, makes MCIM packages, authenticates devices by AKA."""
