// Command status-judge reads a list of Kubernetes objects from standard input, as `kubectl get -o json` prints it, and
// prints what tools make of each: its status by kstatus, which Flux, Helm 4 and kpt use, and its health by the Lua script
// of an Argo CD health check. Both share no code with the agent that wrote the status.
package main

import (
	"encoding/json"
	"fmt"
	"os"

	lua "github.com/yuin/gopher-lua"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
)

type verdict struct {
	Name        string `json:"name"`
	Kstatus     string `json:"kstatus"`
	Message     string `json:"message"`
	Argo        string `json:"argo"`
	ArgoMessage string `json:"argoMessage"`
}

func main() {
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(script string) error {
	list := &unstructured.UnstructuredList{}
	if err := json.NewDecoder(os.Stdin).Decode(list); err != nil {
		return err
	}
	verdicts := []verdict{}
	for i := range list.Items {
		object := &list.Items[i]
		result, err := status.Compute(object)
		if err != nil {
			return fmt.Errorf("%s: %w", object.GetName(), err)
		}
		health, message, err := argo(script, object.Object)
		if err != nil {
			return fmt.Errorf("%s: %w", object.GetName(), err)
		}
		verdicts = append(verdicts, verdict{object.GetName(), result.Status.String(), result.Message, health, message})
	}
	return json.NewEncoder(os.Stdout).Encode(verdicts)
}

// argo runs the script as Argo CD does: the libraries base, table, string and math, the object in the global `obj`, and a
// table with status and message as its result.
func argo(script string, object map[string]interface{}) (string, string, error) {
	state := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer state.Close()
	for name, open := range map[string]lua.LGFunction{
		lua.BaseLibName: lua.OpenBase, lua.TabLibName: lua.OpenTable, lua.StringLibName: lua.OpenString, lua.MathLibName: lua.OpenMath,
	} {
		if err := state.CallByParam(lua.P{Fn: state.NewFunction(open), Protect: true}, lua.LString(name)); err != nil {
			return "", "", err
		}
	}
	state.SetGlobal("obj", valueOf(state, object))
	if err := state.DoFile(script); err != nil {
		return "", "", err
	}
	health, ok := state.Get(-1).(*lua.LTable)
	if !ok {
		return "", "", fmt.Errorf("the script returned %s, not a table", state.Get(-1).Type())
	}
	return health.RawGetString("status").String(), health.RawGetString("message").String(), nil
}

func valueOf(state *lua.LState, value interface{}) lua.LValue {
	switch typed := value.(type) {
	case string:
		return lua.LString(typed)
	case bool:
		return lua.LBool(typed)
	case int64:
		return lua.LNumber(typed)
	case float64:
		return lua.LNumber(typed)
	case []interface{}:
		table := state.NewTable()
		for _, item := range typed {
			table.Append(valueOf(state, item))
		}
		return table
	case map[string]interface{}:
		table := state.NewTable()
		for key, item := range typed {
			table.RawSetString(key, valueOf(state, item))
		}
		return table
	}
	return lua.LNil
}
