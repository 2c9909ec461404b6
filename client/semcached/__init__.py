"""The client of semcached."""
