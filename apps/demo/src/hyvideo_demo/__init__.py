"""The whole way on two CPU cores: footage to a sampled video."""
