"""The nouns of Latentmill: specs, identity, Arrow schemas, events, errors. Imports pydantic and pyarrow, nothing heavier."""
