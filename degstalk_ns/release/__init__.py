"""Avatars that the official DEGSTalk code, or TalkingGaussian's, has trained."""
