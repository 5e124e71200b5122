// Package recording is the read side of video: what a camera recorded (List)
// and an MP4 cut from it (Clip), from what the log holds and nothing else.
//
// Listing reads the index only. A clip reads the closing records of its
// fragments, about five bytes a frame, writes the MP4's index from them and then
// passes the samples through, a page of the log at a time: its memory does not
// grow with the pictures. Frames are never decoded or changed.
package recording
