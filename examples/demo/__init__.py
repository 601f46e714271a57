"""What `make run` shows: a model behind a gateway, ordinary clients, two attackers, and the service between them."""
