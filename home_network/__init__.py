"""What every home of an identity does when a device attaches: challenge, response, resynchronisation, refusal.

Shared by the home operator (identities are subscriptions) and the registration operator (identities are provisional).
"""
