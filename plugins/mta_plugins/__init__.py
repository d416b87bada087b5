"""The plugins that come with the framework, through the same door as anyone's."""
